"""Meeting a constraint exactly: what a soft stage ends in comes near its target; this moves it the rest of the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

import tokprune_kernels as tk

from ..data.encoding import Collator
from ..objectives.gates import FIRST_ONLY
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
    tokens really removed; how many keep ratios leave is known without running the model. Where that cannot reach the target, or
    nothing is pruned, the nearest is returned.

    cost: FlopsCost or LatencyCost, of lengths (num_layers + 1, B).   rows: see data.encoding.encode; a few hundred do.
    """
    low, high = -2.0, 2.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        lengths = kept_lengths(model, _scaled(pruning, 2**middle), rows, collator)
        saved = 1 - float(cost(lengths, lengths[0]))
        low, high = (middle, high) if saved < target else (low, middle)
    return _scaled(pruning, 2**high)


def kept_lengths(model: nn.Module, pruning: tk.PruningConfig, rows: Sequence[dict], collator: Collator) -> Tensor:
    """(num_layers + 1, N) float64: the tokens of each row alive in each layer and at the end, in an order that only depends on
    the rows; the model's own pruning is put back."""
    if pruning.keep_ratios is not None and not pruning.protected_token_ids:
        return _counted(pruning, torch.tensor([len(row["input_ids"]) for row in rows], dtype=torch.float64))
    before = tk.PruningConfig.from_dict(model.config.pruning)
    model.set_pruning(pruning)
    kept = [output["pruning"].kept_lengths.cpu() for _, output in outputs(model, rows, collator, output_pruning=True)]
    model.set_pruning(before)
    return torch.cat(kept, dim=1).double()


def _counted(pruning: tk.PruningConfig, lengths: Tensor) -> Tensor:
    """What keep ratios leave of texts of `lengths` (N,): whichever tokens rank highest, so many they are."""
    kept, apart = [lengths], 0 if pruning.count_first else 1
    for ratio in pruning.keep_ratios if pruning.position == "after_attention" else (*pruning.keep_ratios[1:], 1.0):
        lengths = ((ratio * (lengths - apart) - 1e-9).ceil() + apart).clamp(min=1).minimum(lengths)
        kept.append(lengths)
    return torch.stack(kept)


def _scaled(pruning: tk.PruningConfig, factor: float) -> tk.PruningConfig:
    if pruning.criterion == "threshold":
        return replace(pruning, thresholds=tuple(factor * theta for theta in pruning.thresholds))
    # A layer that keeps the first token alone goes on doing so.
    return replace(pruning, keep_ratios=tuple(ratio if ratio <= FIRST_ONLY else ratio**factor for ratio in pruning.keep_ratios))
