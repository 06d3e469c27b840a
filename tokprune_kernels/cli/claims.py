"""What a checkpoint's files claim, checked before anything is built of it: sizes, the weights behind them, file names."""

import json
from pathlib import Path

from .._auto import TYPES
from .errors import CliError

# Of all model types, with the least that each can be.
_SIZES = dict.fromkeys(("hidden_size", "dim", "intermediate_size", "hidden_dim", "embedding_size", "vocab_size", "max_position_embeddings"), 1)
_SIZES |= dict.fromkeys(("num_hidden_layers", "n_layers", "num_attention_heads", "n_heads"), 1) | {"type_vocab_size": 0, "task_type_vocab_size": 0, "num_labels": 0}
# Modules are built one by one, and labels named one by one: for so many that takes seconds, not days.
_COUNTED = {"num_hidden_layers": 10_000, "n_layers": 10_000, "num_labels": 1_000_000}
_MOST = 2**31 - 1
# What a forward returns, and in how many pieces it is computed: the commands say that themselves.
_ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
_OF_THE_CALL = ("return_dict", "output_attentions", "output_hidden_states", "chunk_size_feed_forward")


def believable(name: str, fields: dict) -> dict:
    """Return the fields of a config.json without those that belong to a call. Raises CliError for sizes that no model can have, or code."""
    for field, least in _SIZES.items():
        most = _COUNTED.get(field, _MOST)
        value = fields.get(field)
        if value is None:  # transformers says whether it may be
            continue
        if type(value) is not int or not least <= value <= most:
            raise CliError(f"cannot load model {name!r}: {field} in its config.json must be a whole number from {least} to {most}, got {_short(value)}")
    classes = fields.get("architectures") or []
    if not isinstance(classes, list) or not all(isinstance(kind, str) for kind in classes):
        raise CliError(f"cannot load model {name!r}: architectures in its config.json must be a list of names of classes, got {_short(classes)}")
    for field in _ATTENTION:
        if "/" in str(fields.get(field)):
            raise CliError(f"cannot load model {name!r}: {field} in its config.json asks for code from elsewhere, {_short(fields[field])}, which is not run")
    return {field: value for field, value in fields.items() if field not in _OF_THE_CALL}


def check_weights(name: str, config) -> None:
    """Raise CliError where a folder's weights cannot be those of its configuration, or are said to lie elsewhere.

    Whatever the weights lack would be made up, and take as much memory as config.json says.
    """
    folder = Path(name)
    if not folder.is_dir():
        return
    for index in folder.glob("*.index.json"):
        for file in _files_of(index):
            if not isinstance(file, str) or Path(file).name != file:
                raise CliError(f"cannot load model {name!r}: {index.name} names {_short(file)}, which is no file of that folder")
    if config.model_type not in TYPES:  # layers of others may share their weights, and they are refused anyway
        return
    stored = sum(path.stat().st_size for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))
    needed = _least_parameters(config)
    if stored and needed > stored:  # a byte for each at least
        raise CliError(
            f"cannot load model {name!r}: the sizes in its config.json are those of a model of {needed:,} parameters or more, its weights "
            f"have {stored:,} bytes: the one does not belong to the other"
        )


def _files_of(index: Path) -> list:
    try:
        return list(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # who loads it says what is wrong with it
        return []


def _least_parameters(config) -> int:
    width, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "hidden_dim", None) or getattr(config, "intermediate_size", 0)
    embedded = getattr(config, "embedding_size", None) or width
    return layers * (4 * width**2 + 2 * width * inner) + (config.vocab_size + config.max_position_embeddings) * embedded


def _short(value) -> str:
    if isinstance(value, int):
        return str(value) if abs(value) < 10**24 else f"one of {len(str(value))} digits"
    said = "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else repr(value)
    return said if len(said) <= 80 else f"{said[:80]}..."
