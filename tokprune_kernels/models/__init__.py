"""Hugging Face models that prune; the only place that imports transformers.

Every class of transformers that can be pruned has one here of its name after "Pruned": `PrunedRobertaForTokenClassification`.
"""

from .classes import config_class_of, named_class
from .configuration import PrunedBertConfig
from .loading import from_pretrained
from .prune import prune_model

__all__ = [
    "PrunedBertConfig",
    "PrunedBertForQuestionAnswering",
    "PrunedBertForSequenceClassification",
    "PrunedBertForTokenClassification",
    "PrunedBertModel",
    "from_pretrained",
    "prune_model",
]

config_class_of(PrunedBertConfig.model_type)


def __getattr__(name: str):
    found = named_class(name)
    if found is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
