"""Classes that prune from the start, one for every class of transformers that can, and transformers' Auto classes told of them."""

from __future__ import annotations

from functools import cache
from typing import Any, NoReturn

import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING

from .configuration import CLASS_PREFIX, original_name, pruned_config_class
from .prune import prune_model

_PACKAGE = __name__.rpartition(".")[0]


class PrunedModelMixin:
    """Prunes by the configuration that the model is made with.

    `from_pretrained(path, pruning=PruningConfig...)` loads ordinary checkpoints and pruned ones, whose own configuration holds unless
    `pruning` is given; `save_pretrained` writes it along; `set_pruning` changes it later.
    `model(..., output_pruning=True)` adds `out.pruning` (PruningOutput). last_hidden_state (B, L, H) holds final states of the tokens
    kept, exit states of those pruned, and zeros at padding.
    """

    def __init__(self, config: PreTrainedConfig, *args: Any, **kwargs: Any):
        super().__init__(config, *args, **kwargs)
        prune_model(self, getattr(config, "pruning", None))

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> NoReturn:
        """Refused: the class is made of a package, not of a file that could be put beside the weights."""
        raise ValueError(
            f"{cls.__name__} cannot be copied into a checkpoint as code: what it saves is loaded by the Auto classes of whoever has "
            "imported tokprune_kernels"
        )


@cache
def pruned_class(original: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """The class that prunes from the start for one of transformers."""
    members = {
        "__module__": _PACKAGE,
        "__doc__": f"transformers' {original.__name__} that removes tokens on the way; see PrunedModelMixin.",
        "config_class": pruned_config_class(original.config_class),
    }
    return type(CLASS_PREFIX + original.__name__, (PrunedModelMixin, original), members)


def named_class(name: str) -> type[PreTrainedModel] | None:
    """The class that prunes, by its name: that of transformers after "Pruned"; None if there is none of that name."""
    original = getattr(transformers, original_name(name), None) if name.startswith(CLASS_PREFIX) else None
    if isinstance(original, type) and issubclass(original, PreTrainedModel) and original.config_class is not None:
        return pruned_class(original)
    return None


@cache
def register_auto_classes(original: type[PreTrainedConfig]) -> type[PreTrainedConfig]:
    """Have transformers' Auto classes find the classes that prune for a configuration class's `pruned_config_class`; returns that."""
    config_class = pruned_config_class(original)
    for auto in vars(modeling_auto).values():
        mapping = getattr(auto, "_model_mapping", None)
        if mapping is not None and original in mapping:
            found = mapping[original]
            pruned = tuple(map(pruned_class, found)) if isinstance(found, (tuple, list)) else pruned_class(found)
            mapping.register(config_class, pruned, exist_ok=True)
    if original in TOKENIZER_MAPPING:
        TOKENIZER_MAPPING.register(config_class, TOKENIZER_MAPPING[original], exist_ok=True)
    return config_class


def config_class_of(model_type: str) -> type[PreTrainedConfig]:
    """The configuration class with `pruning` of a transformers model type, which the Auto classes then know."""
    return register_auto_classes(CONFIG_MAPPING[model_type])
