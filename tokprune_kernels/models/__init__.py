"""Hugging Face models that prune; the only place that imports transformers."""

from .bert import (
    PrunedBertForQuestionAnswering,
    PrunedBertForSequenceClassification,
    PrunedBertForTokenClassification,
    PrunedBertModel,
)
from .configuration import PrunedBertConfig
from .prune import prune_model

__all__ = [
    "PrunedBertConfig",
    "PrunedBertForQuestionAnswering",
    "PrunedBertForSequenceClassification",
    "PrunedBertForTokenClassification",
    "PrunedBertModel",
    "prune_model",
]
