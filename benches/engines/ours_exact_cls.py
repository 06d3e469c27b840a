"""Ours, packed and dense, under a head that reads only [CLS]: the last layer computes that row alone.

No pruning and the same output; a row of its own, so that it is never taken for a gain of pruning.
"""

from torch import nn
from transformers import BertForSequenceClassification

import tokprune_kernels as tk

from .engine import OURS, Engine
from .twins import own_copy


class PooledRun:
    """From a batch to the pooled output (B, H)."""

    def __init__(self, model, dtype):
        base = own_copy(model, dtype)
        head = BertForSequenceClassification(base.config)
        head.bert, head.classifier = base, nn.Identity()
        self.model = tk.prune_model(head.eval(), tk.PruningConfig.dense()).freeze_for_inference()

    def __call__(self, batch):
        return self.model(**batch).logits


ENGINE = Engine(
    "ours_exact_cls",
    OURS,
    ("fp32", "bf16"),
    lambda model, dtype, threads, cache_folder: PooledRun(model, dtype),
    at_padded_task=None,
    pooled_only=True,
)
