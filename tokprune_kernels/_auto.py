"""Tells transformers' Auto classes of pruned checkpoints once both packages are there, without importing transformers for it.

What is registered stands for a configuration class until a checkpoint of its type is loaded, which imports the models.
"""

from __future__ import annotations

from typing import Any

from ._when_imported import when_imported

_MODULE = "transformers.models.auto.configuration_auto"
# Model types whose pruned checkpoints can be loaded; what a type needs is in models/adapters.py. DPR has a BERT inside.
TYPES = ("bert", "camembert", "data2vec-text", "distilbert", "dpr", "electra", "ernie", "roberta", "xlm-roberta")
# What precedes the model type on disk, and the type of checkpoints from before there was one for every model type.
PREFIX = "tokprune_kernels_"
FORMER_TYPE = "pruned_bert"


def register_with_transformers() -> None:
    """Register the types now, or when transformers is imported."""
    when_imported(_MODULE, _register)


def _register(auto: Any) -> None:
    for model_type, name in [(one, PREFIX + one) for one in TYPES] + [("bert", FORMER_TYPE)]:
        auto.CONFIG_MAPPING.register(name, _later(model_type), exist_ok=True)


def _later(model_type: str) -> type:
    def find() -> type:
        from .models.classes import config_class_of

        return config_class_of(model_type)

    class Pruned:
        """Stands for the configuration class of a type."""

        @classmethod
        def from_dict(cls, *args: Any, **kwargs: Any):
            return find().from_dict(*args, **kwargs)

        @classmethod
        def from_pretrained(cls, *args: Any, **kwargs: Any):
            return find().from_pretrained(*args, **kwargs)

    Pruned.model_type = PREFIX + model_type
    return Pruned
