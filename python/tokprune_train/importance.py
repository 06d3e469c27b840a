"""The importance that a model's decisions hang on: of the tokens alive in each layer, noted while it runs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

# A token of less weight, in soft pruning, is one that removal would have left out.
_ALIVE = 0.5


class Scored(NamedTuple):
    """One layer: importance (T,) of the packed tokens, differentiable, as it is where all alive count fully; which of them were
    alive in it (T,) bool, and the row bounds of the texts (B + 1,)."""

    importance: Tensor
    alive: Tensor
    cu_seqlens: Tensor


def run_scored(model: nn.Module, pruner: nn.Module | None, inputs: dict, places: Tensor) -> tuple[dict[str, Tensor], list[Scored]]:
    """The model's output, and what it made of its tokens in each layer.

    pruner: prunes softly (see tokprune_kernels' soft pruning); None: the model really removes tokens, or none.
    inputs: keyword arguments of the model, with attention_mask (B, L).   places: (T,) where in it, flat, tokens are.
    """
    if pruner is not None:
        noted = _NotedPruner(pruner)
        return model(**inputs | {"soft_pruning": noted}), noted.scored
    output = model(**inputs, output_pruning=True)
    cu_seqlens = functional.pad((inputs["attention_mask"] != 0).sum(dim=1).cumsum(0), (1, 0))
    noted = output["pruning"]
    layers = zip(noted.importance.flatten(1)[:, places], noted.kept_mask.flatten(1)[:, places])
    return output, [Scored(importance, alive, cu_seqlens) for importance, alive in layers]


class _NotedPruner:
    """A soft pruner that notes what it is shown.

    A key that counts half receives half. That much is taken out again: it is the pruner's, not the model's view of the token.
    """

    def __init__(self, pruner: nn.Module):
        self.pruner = pruner
        self.masks, self.score_denominator = pruner.masks, pruner.score_denominator
        self.scored: list[Scored] = []

    def __call__(self, layer: int, importance: Tensor, weights: Tensor, cu_seqlens: Tensor) -> Tensor | None:
        alive = weights.detach() >= _ALIVE
        counted = importance / weights.clamp(min=_ALIVE) if self.masks == "attention" else importance
        self.scored.append(Scored(counted, alive, cu_seqlens))
        return self.pruner(layer, importance, weights, cu_seqlens)
