"""Configurations of pruned models: the model's own, and how it is pruned.

On disk a pruned model has a model type of its own, which names this package: whoever loads it without the package is told so, instead
of getting a dense model with other answers. In memory it has the type that it was pruned from, by which other tools find their way.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from transformers import BertConfig, PreTrainedConfig

from .._auto import FORMER_TYPE, PREFIX
from ..pruning_config import PruningConfig

# What precedes the names of classes.
CLASS_PREFIX = "Pruned"


class PrunedConfigMixin:
    """Gives a transformers configuration the field `pruning`: what PruningConfig.to_dict() gives, or None (dense).

    A PruningConfig given for it, to the constructor or to from_pretrained, is turned into that dict. Reads configurations of
    pruned checkpoints and of ordinary ones of its type.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "pruning" and isinstance(value, PruningConfig):
            value = value.to_dict()
        super().__setattr__(name, value)

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """As the parent's, with the type in memory; ValueError for a checkpoint of another type."""
        values, unused = super().get_config_dict(*args, **kwargs)
        written = values.get("model_type")
        if written is not None and original_type(written) != cls.model_type:
            name = args[0] if args else kwargs.get("pretrained_model_name_or_path")
            raise ValueError(
                f"{name!r} holds a model of type {original_type(written)!r}, and {cls.__name__} is for {cls.model_type!r}: load it with "
                "tokprune_kernels.from_pretrained, which finds the class that fits"
            )
        if written is not None:
            values["model_type"] = cls.model_type
        return values, unused

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any):
        """As the parent's, of a pruned checkpoint's fields, too."""
        fields = {name: value for name, value in config_dict.items() if name != "model_type"}
        return super().from_dict(fields, **kwargs)

    def to_json_string(self, use_diff: bool = True) -> str:
        """As the parent's; where something is pruned with the model type and the classes of this package."""
        text = super().to_json_string(use_diff)
        if not prunes(self):
            return text
        fields = json.loads(text)
        fields["model_type"] = PREFIX + self.model_type
        if fields.get("architectures"):
            fields["architectures"] = [CLASS_PREFIX + original_name(name) for name in fields["architectures"]]
        return json.dumps(fields, indent=2, sort_keys=True) + "\n"

    def __reduce_ex__(self, protocol: int):
        # Most of these classes are made on demand, and cannot be found by their name.
        return _restored, (self.original_class, dict(self.__dict__))


class PrunedBertConfig(PrunedConfigMixin, BertConfig):
    """A transformers BertConfig with the field `pruning`; see PrunedConfigMixin."""

    model_type = BertConfig.model_type
    original_class = BertConfig
    pruning: dict | None = None


@cache
def pruned_config_class(original: type[PreTrainedConfig]) -> type[PreTrainedConfig]:
    """The configuration class with `pruning` for a transformers one; that itself if it has it."""
    if issubclass(original, PrunedConfigMixin):
        return original
    if original is BertConfig:
        return PrunedBertConfig
    members = {
        "__module__": __name__,
        "__doc__": f"A transformers {original.__name__} with the field `pruning`; see PrunedConfigMixin.",
        "__annotations__": {"pruning": "dict | None"},
        "pruning": None,
        "model_type": original.model_type,
        "original_class": original,
    }
    return type(CLASS_PREFIX + original.__name__, (PrunedConfigMixin, original), members)


def make_pruned(config: PreTrainedConfig) -> None:
    """Give a configuration its class with `pruning`, in place: models, heads and tokenizers share it."""
    object.__setattr__(config, "__class__", pruned_config_class(type(config)))


def prunes(config: PreTrainedConfig) -> bool:
    """Whether a configuration says that something is pruned; ValueError or TypeError if what it says is no pruning."""
    said = getattr(config, "pruning", None)
    return said is not None and not PruningConfig.from_dict(said).is_dense


def original_type(model_type: str) -> str:
    """The transformers model type behind one on disk."""
    return BertConfig.model_type if model_type == FORMER_TYPE else model_type.removeprefix(PREFIX)


def original_name(class_name: str) -> str:
    """The name of the transformers class behind a pruned one's."""
    return class_name.removeprefix(CLASS_PREFIX)


def _restored(original: type[PreTrainedConfig], fields: dict[str, Any]) -> PreTrainedConfig:
    cls = pruned_config_class(original)
    config = cls.__new__(cls)
    config.__dict__.update(fields)
    return config
