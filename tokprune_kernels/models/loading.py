"""Loading any checkpoint of a supported type as the model that it was saved as, pruned."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import transformers
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from ..pruning_config import PruningConfig
from .classes import pruned_class
from .configuration import original_name, original_type
from .encoder import as_pruning_config
from .prune import CHECKPOINTS_OWN

# Of from_pretrained's arguments, those that say where the files are.
_WHERE = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


def from_pretrained(
    name_or_path: str | os.PathLike, *, pruning: PruningConfig | Mapping | None = CHECKPOINTS_OWN, **options: Any
) -> PreTrainedModel:
    """Load a checkpoint of any supported model type, with the head that it was saved with, pruned as it was saved.

    Args:
        name_or_path: a folder or hub id; of an ordinary checkpoint, or of one that was saved pruned, by this version or a former one.
        pruning: a PruningConfig, its to_dict() or None (dense) in place of the checkpoint's own, which where there is none is dense.
        options: transformers' from_pretrained's.

    Returns:
        a model of the class of transformers that the checkpoint names, of its subclass that prunes (`PrunedBertForTokenClassification`).

    Raises:
        ValueError: a model type that cannot be pruned (the supported ones are listed), or a pruning that does not fit the model.
        TypeError: no pruning configuration.   OSError: nothing to load there.
    """
    fields, _ = PreTrainedConfig.get_config_dict(name_or_path, **{name: options[name] for name in _WHERE if name in options})
    if pruning is not CHECKPOINTS_OWN:
        options["pruning"] = as_pruning_config(pruning).to_dict()
    return pruned_class(_saved_class(name_or_path, fields)).from_pretrained(name_or_path, **options)


def _saved_class(name_or_path: Any, fields: dict[str, Any]) -> type[PreTrainedModel]:
    model_type = original_type(fields.get("model_type") or "")
    for architecture in fields.get("architectures") or ():
        named = getattr(transformers, original_name(architecture), None)
        if isinstance(named, type) and issubclass(named, PreTrainedModel):
            return named
    try:
        return AutoModel._model_mapping[transformers.CONFIG_MAPPING[model_type]]
    except KeyError:
        raise ValueError(f"{str(name_or_path)!r} holds no model type that transformers knows: {fields.get('model_type')!r}") from None
