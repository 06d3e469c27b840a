"""BERT classes that prune from the start, under transformers' Auto classes."""

from __future__ import annotations

from typing import Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

from .configuration import PrunedBertConfig
from .prune import prune_model


class _Pruned:
    """Prunes by the configuration that the model is made with."""

    config_class = PrunedBertConfig

    def __init__(self, config: PrunedBertConfig, *args: Any, **kwargs: Any):
        super().__init__(config, *args, **kwargs)
        prune_model(self, getattr(config, "pruning", None))


class PrunedBertModel(_Pruned, BertModel):
    """transformers' BertModel that removes tokens on the way.

    `from_pretrained(path, pruning=PruningConfig...)` loads ordinary BERT checkpoints and pruned ones, whose own configuration
    holds unless `pruning` is given; `save_pretrained` writes it along; `set_pruning` changes it later.
    `model(..., output_pruning=True)` adds `out.pruning` (PruningOutput). last_hidden_state (B, L, H) holds final states of
    the tokens kept, exit states of those pruned, and zeros at padding.
    """


class PrunedBertForSequenceClassification(_Pruned, BertForSequenceClassification):
    """transformers' BertForSequenceClassification that removes tokens on the way; see PrunedBertModel.

    It reads each text's first token only, so pruned tokens are not restored unless hidden states are asked for.
    """


class PrunedBertForTokenClassification(_Pruned, BertForTokenClassification):
    """transformers' BertForTokenClassification that removes tokens on the way.

    Pruned tokens are labelled by their exit states.
    """


class PrunedBertForQuestionAnswering(_Pruned, BertForQuestionAnswering):
    """transformers' BertForQuestionAnswering that removes tokens on the way.

    Pruned tokens are scored by their exit states.
    """


AutoConfig.register(PrunedBertConfig.model_type, PrunedBertConfig)
AutoModel.register(PrunedBertConfig, PrunedBertModel)
AutoModelForSequenceClassification.register(PrunedBertConfig, PrunedBertForSequenceClassification)
AutoModelForTokenClassification.register(PrunedBertConfig, PrunedBertForTokenClassification)
AutoModelForQuestionAnswering.register(PrunedBertConfig, PrunedBertForQuestionAnswering)
