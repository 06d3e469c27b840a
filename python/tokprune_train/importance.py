"""The importance that a model's decisions hang on: of the tokens alive in each layer, noted while it runs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

# A token of less weight, in soft pruning, is one that removal would have left out.
_ALIVE = 0.5


class Scored(NamedTuple):
    """One layer: importance (T,) of the packed tokens, differentiable, and which of them were alive in it (T,) bool."""

    importance: Tensor
    alive: Tensor


class NotedPruner:
    """A soft pruner that notes what it is shown: `scored`, one of each layer.

    pruner: decides (see tokprune_kernels' soft pruning).
    """

    def __init__(self, pruner: nn.Module):
        self.pruner = pruner
        self.masks, self.score_denominator = pruner.masks, pruner.score_denominator
        self.scored: list[Scored] = []

    def __call__(self, layer: int, importance: Tensor, weights: Tensor, cu_seqlens: Tensor) -> Tensor | None:
        self.scored.append(Scored(importance, weights.detach() >= _ALIVE))
        return self.pruner(layer, importance, weights, cu_seqlens)


def scored_by_removal(importance: Tensor, kept_mask: Tensor, attention_mask: Tensor) -> list[Scored]:
    """The same of a model that really removes tokens, from what it reports with output_pruning=True.

    importance: (num_layers, B, L).   kept_mask: (num_layers + 1, B, L).   attention_mask: (B, L), of its input.
    """
    present = attention_mask != 0
    return [Scored(scores[present], alive[present]) for scores, alive in zip(importance, kept_mask)]
