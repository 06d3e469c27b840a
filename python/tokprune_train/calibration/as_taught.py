"""What a dense model would keep if its layers judged tokens as the teacher does: what importance distillation leads to.

Before a training an early layer's own importance is a poor judge, and favours pruning late. Where the judgement is taught, a start
is better chosen as if that had been learned.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

import tokprune_kernels as tk

from ..data.encoding import Collator, by_length, model_inputs
from ..objectives.ragged import per_text_sum, text_index

# Of a row, or of a batch: see teacher.teach.
TAUGHT = "teacher_mean_importance"


def kept_as_taught(pruning: tk.PruningConfig, layers: int, importance: Tensor, cu_seqlens: Tensor) -> Tensor:
    """(layers + 1, T) bool: row l = the packed tokens alive as keys in layer l's attention, the last row = alive at the end.

    pruning: without protected tokens.   importance: (T,) float, what every layer would give the tokens, but for what those alive
    share out among them.   cu_seqlens: (B + 1,) int32.
    """
    initial = cu_seqlens.diff()
    alive = torch.ones(len(importance), dtype=torch.bool)
    kept = [alive]
    for layer in range(layers):
        decides = layer if pruning.position == "after_attention" else layer + 1
        if decides < layers and pruning.prunes_at(decides):
            alive = _decided(pruning, decides, importance, alive, cu_seqlens, initial)
        kept.append(alive)
    return torch.stack(kept)


def lengths_as_taught(pruning: tk.PruningConfig, layers: int, rows: Sequence[dict]) -> Tensor:
    """(layers + 1, rows) float64: tokens alive; the model need not run for that."""
    importance = torch.cat([row[TAUGHT] for row in rows])
    cu_seqlens = _bounds(torch.tensor([len(row[TAUGHT]) for row in rows]))
    kept = kept_as_taught(pruning, layers, importance, cu_seqlens)
    return torch.stack([per_text_sum(alive.double(), cu_seqlens) for alive in kept])


def answers_as_taught(model: nn.Module, pruning: tk.PruningConfig, rows: Sequence[dict], collator: Collator, batch_size: int = 64) -> Tensor:
    """(N, C) float32 logits with those tokens only, in the order of `running.outputs`; the model is set to eval mode."""
    layers, answers = model.config.num_hidden_layers, []
    model.eval()
    for chosen in by_length(rows, batch_size):
        batch = collator([rows[row] for row in chosen])
        present = batch["attention_mask"] != 0
        kept = kept_as_taught(pruning, layers, batch[TAUGHT][present], _bounds(present.sum(dim=1)))
        with torch.no_grad():
            answers.append(model(**model_inputs(batch), soft_pruning=_Decided(kept))["logits"].float())
    return torch.cat(answers)


class _Decided:
    """A soft pruner that says what was decided before; weights of 0 and 1 are removal."""

    masks, score_denominator = "attention", "kept"

    def __init__(self, kept: Tensor):
        self.kept = kept

    def __call__(self, layer: int, importance: Tensor, weights: Tensor, cu_seqlens: Tensor) -> Tensor:
        return self.kept[layer + 1].to(weights.dtype)


def _decided(
    pruning: tk.PruningConfig, at: int, importance: Tensor, alive: Tensor, cu_seqlens: Tensor, initial: Tensor
) -> Tensor:
    counts = per_text_sum(alive.long(), cu_seqlens)
    bounds, there = _bounds(counts), alive.nonzero().flatten()
    scores = importance[there].float()
    texts = text_index(bounds, len(there))
    sums = per_text_sum(scores, bounds).clamp(min=torch.finfo(torch.float32).tiny)
    keep = tk.ops.keep_topk
    if pruning.criterion == "threshold":
        keep, denominators = tk.ops.keep_threshold, {"kept": counts, "initial": initial}
        sums = sums * denominators.get(pruning.score_denominator, pruning.score_denominator) / counts.clamp(min=1)
    kept, _ = keep((scores / sums[texts]).contiguous(), bounds, pruning.values[at], None, pruning.protect_first)
    return torch.zeros_like(alive).index_fill(0, there[kept.long()], True)


def _bounds(counts: Tensor) -> Tensor:
    return functional.pad(counts.cumsum(0), (1, 0)).int()
