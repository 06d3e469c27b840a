"""One trained model at several speeds: what its pruning, made milder or harsher without more training, costs in score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tokprune_kernels as tk
from torch import nn

from .calibration.fit import fit_to_target
from .data.encoding import Collator
from .evaluation import Evaluation, evaluate
from .objectives.cost import FlopsCost


@dataclass(frozen=True)
class OperatingPoint:
    """speedup: how many times fewer FLOPs than packed dense were asked for, on the calibration rows."""

    speedup: float
    pruning: tk.PruningConfig
    evaluation: Evaluation

    def to_dict(self) -> dict:
        """As JSON types."""
        return {"speedup": self.speedup, "pruning": self.pruning.to_dict(), "evaluation": self.evaluation.to_dict()}


def operating_points(
    model: nn.Module,
    speedups: Sequence[float],
    calibration: Sequence[dict],
    rows: Sequence[dict],
    collator: Collator,
    max_length: int,
    batch_size: int = 32,
    progress=None,
) -> Iterator[OperatingPoint]:
    """Fit the model's pruning to each speed-up in turn (`fit_to_target`), and score it; its own pruning is put back.

    model: pruned, with a head.   speedups: each above 1.   calibration: rows to meet it on; no label of them is read.
    rows, max_length, batch_size, progress: see `evaluate`.

    Raises ValueError for a speed-up of 1 or less, and for a model that prunes nothing, which no factor makes prune more.
    """
    trained = tk.PruningConfig.from_dict(model.config.pruning)
    if wrong := [speedup for speedup in speedups if not speedup > 1]:
        raise ValueError(f"speed-ups must be above 1, got {wrong[0]:g}")
    if trained.is_dense:
        raise ValueError("the model prunes nothing, so there is nothing to make milder or harsher: give it thresholds or keep ratios")
    cost = FlopsCost(model.config, trained.position)
    for speedup in speedups:
        pruning = fit_to_target(model, trained, cost, 1 - 1 / speedup, calibration, collator)
        model.set_pruning(pruning)
        try:
            point = OperatingPoint(speedup, pruning, evaluate(model, rows, collator, max_length, batch_size, progress))
        finally:
            model.set_pruning(trained)
        yield point
