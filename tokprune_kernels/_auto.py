"""Tells transformers' Auto classes of pruned checkpoints once both packages are there, without importing transformers for it.

What is registered stands for a configuration class until a checkpoint of its type is loaded, which imports the models.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from typing import Any

_MODULE = "transformers.models.auto.configuration_auto"
# Model types whose pruned checkpoints can be loaded; what a type needs is in models/adapters.py. DPR has a BERT inside.
TYPES = ("bert", "camembert", "data2vec-text", "distilbert", "dpr", "electra", "ernie", "roberta", "xlm-roberta")
# What precedes the model type on disk, and the type of checkpoints from before there was one for every model type.
PREFIX = "tokprune_kernels_"
FORMER_TYPE = "pruned_bert"


def register_with_transformers() -> None:
    """Register the types now, or when transformers is imported."""
    if _MODULE in sys.modules:
        _register(sys.modules[_MODULE])
    else:
        sys.meta_path.insert(0, _WhenImported())


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


class _WhenImported(MetaPathFinder):
    """Runs `_register` after the module of the Auto configurations was imported, and is gone."""

    def find_spec(self, name: str, path: Any = None, target: Any = None):
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            _register(module)

        spec.loader.exec_module = exec_module
        return spec
