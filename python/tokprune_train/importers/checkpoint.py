"""A checkpoint folder of another program: its configuration, its weights, and the model that they make, with nothing left over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor, nn
from tokprune_kernels.cli.claims import believable, check_weights
from transformers import AutoConfig
from transformers.modeling_utils import load_state_dict

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# Of any kind of tokenizer: copied as they are, since another program's model type would not load them.
_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
    "sentencepiece.bpe.model", "spiece.model",
)  # fmt: skip
# What a training wanted of its model, and versions: neither is the model's.
_OF_THE_TRAINING = ("output_attentions", "output_hidden_states", "gradient_checkpointing", "transformers_version", "torch_dtype", "_name_or_path")
# Buffers that older versions of transformers kept.
_NO_WEIGHTS = ("position_ids", "token_type_ids")
HEADS = ("Model", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")


@dataclass(frozen=True)
class Imported:
    """A model that prunes, and where it comes from.   left_out: tensors of the checkpoint that it has no use for, by name."""

    model: nn.Module
    left_out: tuple[str, ...] = ()


def read_config(folder: str | Path) -> dict[str, Any]:
    """config.json of a folder, without what is of a training alone. Raises ValueError where there is none to be read."""
    path = Path(folder) / "config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read {str(path)!r}, which must be the checkpoint's configuration: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{str(path)!r} must hold an object with the fields of a configuration, got a {type(fields).__name__}")
    return {name: value for name, value in fields.items() if name not in _OF_THE_TRAINING}


def configuration(folder: str | Path, model_type: str, fields: dict[str, Any]) -> Any:
    """transformers' configuration of a model type. Raises ValueError for fields that it cannot have, or that the weights belie."""
    try:
        config = AutoConfig.for_model(model_type, **believable(str(folder), fields))
        check_weights(str(folder), config)
    except Exception as error:  # transformers checks each field in a way of its own
        raise ValueError(f"its config.json describes no {model_type}: {' '.join(str(error).split())}") from error
    return config


def read_weights(folder: str | Path) -> dict[str, Tensor]:
    """The tensors of a folder by name, on the CPU; nothing is unpickled but tensors.

    Raises ValueError where there is no file of weights, or one that holds anything else.
    """
    path = next((Path(folder) / name for name in _WEIGHTS if (Path(folder) / name).is_file()), None)
    if path is None:
        raise ValueError(f"{str(folder)!r} has none of {', '.join(_WEIGHTS)}: the weights must be in one file of that name")
    try:
        weights = load_state_dict(path)
    except Exception as error:  # whatever the file's format raises
        raise ValueError(f"cannot read the weights in {str(path)!r}: {error}") from error
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{str(path)!r} must hold a state dict, tensors by name")
    return {name: value for name, value in weights.items() if name.rpartition(".")[2] not in _NO_WEIGHTS}


def head_of(architectures: Any, prefixes: Sequence[str]) -> tuple[str, str]:
    """(prefix, head) of the class in a configuration's `architectures`, e.g. ("LTP", "ForSequenceClassification").

    prefixes: of the classes that are known. Raises ValueError for any other class.
    """
    known = {prefix + head: (prefix, head) for prefix in prefixes for head in HEADS}
    names = architectures if isinstance(architectures, list) else []
    found = next((known[name] for name in names if name in known), None)
    if found is None:
        raise ValueError(f"architectures in config.json must name one of {', '.join(known)}; got {architectures!r}")
    return found


def build(kind: str, config: Any, weights: Mapping[str, Tensor]) -> nn.Module:
    """transformers' class `kind` of this configuration with exactly these weights, in eval mode.

    Raises ValueError where weights are missing, are left over, or have another shape.
    """
    model = getattr(transformers, kind)(config)
    wanted = model.state_dict()
    base = model.base_model_prefix + "."
    # Heads that read no pooled state have no pooler, which a checkpoint of the model alone or of another head may have.
    without_pooler = not any(name.startswith(f"{base}pooler.") for name in wanted)
    given = {name: value for name, value in weights.items() if not (without_pooler and name.startswith(f"{base}pooler."))}
    _refuse("lacks", "needs", sorted(set(wanted) - set(given)), kind)
    _refuse("has", "does not know", sorted(set(given) - set(wanted)), kind)
    shapes = [f"{name} {tuple(given[name].shape)}, not {tuple(wanted[name].shape)}" for name in given if given[name].shape != wanted[name].shape]
    if shapes:
        raise ValueError(f"the checkpoint's tensors do not have the shapes that its config.json says: {_some(shapes)}")
    model.load_state_dict(given)
    return model.eval()


def copy_tokenizer(folder: str | Path, output: str | Path) -> list[str]:
    """Copy the tokenizer's files; returns their names."""
    found = [name for name in _TOKENIZER if (Path(folder) / name).is_file()]
    for name in found:
        shutil.copyfile(Path(folder) / name, Path(output) / name)
    return found


def _refuse(verb: str, what: str, names: Sequence[str], kind: str) -> None:
    if names:
        raise ValueError(f"the checkpoint {verb} {len(names)} tensor(s) that {kind} {what}: {_some(names)}")


def _some(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
