"""Meeting a constraint exactly: what a soft stage ends in comes near its target; this moves it the rest of the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

import tokprune_kernels as tk

from ..data.encoding import Collator
from ..running import outputs

_HALVINGS = 10


def fit_to_target(
    model: nn.Module,
    pruning: tk.PruningConfig,
    cost: Callable[[Tensor, Tensor], Tensor],
    target: float,
    rows: Sequence[dict],
    collator: Collator,
) -> tk.PruningConfig:
    """The pruning, made milder or harsher in all layers alike, that saves the share `target` of the cost on these rows.

    Thresholds are multiplied by one factor, keep ratios raised to one power; both lie in [1/4, 4], found by bisection with
    tokens really removed. Where that cannot reach the target, or nothing is pruned, the nearest is returned.

    cost: FlopsCost or LatencyCost, of lengths (num_layers + 1, B).   rows: see data.encoding.encode; a few hundred do.
    """
    before = tk.PruningConfig.from_dict(model.config.pruning)
    low, high = -2.0, 2.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        model.set_pruning(_scaled(pruning, 2**middle))
        saved = 1 - float(cost(*_lengths(model, rows, collator)))
        low, high = (middle, high) if saved < target else (low, middle)
    model.set_pruning(before)
    return _scaled(pruning, 2**high)


def _scaled(pruning: tk.PruningConfig, factor: float) -> tk.PruningConfig:
    if pruning.criterion == "threshold":
        return replace(pruning, thresholds=tuple(factor * theta for theta in pruning.thresholds))
    return replace(pruning, keep_ratios=tuple(ratio**factor for ratio in pruning.keep_ratios))


def _lengths(model: nn.Module, rows: Sequence[dict], collator: Collator) -> tuple[Tensor, Tensor]:
    kept = [output["pruning"].kept_lengths for _, output in outputs(model, rows, collator, output_pruning=True)]
    lengths = torch.cat(kept, dim=1).double()
    return lengths, lengths[0]
