"""Ours: a pruned model whose configuration is chosen for the workload it is about to run."""

from collections.abc import Callable

import torch
from transformers import BertConfig, BertModel
from workloads import Workload

import tokprune_kernels as tk

from .engine import OURS, Batch, Engine
from .twins import own_copy

# ToP's kind of keep ratios, for BERT-base's 12 layers: about 30% of the FLOPs of packed dense are left.
KEEP_RATIOS = (1.0, 0.65, 0.65, 0.65, 0.8, 0.8, 0.8, 1.0, 0.9, 1.0, 1.0, 1.0)


def keep_ratios(layers: int) -> list[float]:
    """KEEP_RATIOS of the first `layers` layers, for models up to BERT-base's depth."""
    if layers > len(KEEP_RATIOS):
        raise ValueError(f"keep ratios are given for up to {len(KEEP_RATIOS)} layers, the model has {layers}")
    return list(KEEP_RATIOS[:layers])


class PrunedRun:
    """A run of a pruned model: `tune` before the first call on a workload."""

    def __init__(self, model: BertModel, choose: Callable[[BertModel, Workload], tk.PruningConfig]):
        self.model, self._choose = model, choose
        self.pruning = tk.PruningConfig.dense()

    def tune(self, workload: Workload) -> None:
        """Set the pruning for this workload."""
        self.pruning = self._choose(self.model, workload)
        self.model.set_pruning(self.pruning)

    @property
    def config(self) -> BertConfig:
        """The model's configuration, with its pruning."""
        return self.model.config

    def __call__(self, batch: Batch) -> torch.Tensor:
        return self.model(**batch).last_hidden_state

    def kept_mask(self, batch: Batch) -> torch.Tensor:
        """(layers + 1, B, L) bool: which tokens are in each layer's attention, and at the end."""
        return self.model(**batch, output_pruning=True).pruning.kept_mask

    def kept_lengths(self, batch: Batch) -> torch.Tensor:
        """(layers + 1, B) integers: how many they are."""
        return self.model(**batch, output_pruning=True).pruning.kept_lengths


def pruned(
    name: str, choose: Callable[[BertModel, Workload], tk.PruningConfig], at_padded_task: bool | None = False
) -> Engine:
    """An engine of ours; `choose` gives its pruning for a workload."""

    def load(model, dtype, threads, cache_folder):
        # Freezing gives the weights up for those of its own layout, as the other engines do.
        own = tk.prune_model(own_copy(model, dtype), tk.PruningConfig.dense())
        return PrunedRun(own.freeze_for_inference(), choose)

    return Engine(name, OURS, ("fp32", "bf16"), load, at_padded_task=at_padded_task)
