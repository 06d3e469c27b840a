"""What both methods have in common: the constraint on the cost, and what is noted of a batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from ..objectives.constraint import Lagrangian, global_mean
from ..objectives.cost import FlopsCost, LatencyCost


@dataclass
class Constraint:
    """What the pruned model may cost.

    cost: expected lengths -> relative cost.   target: share of the dense cost that is to be saved.   ramp: share of the
    training over which that share rises from 0.   learning_rate: of the two multipliers, by gradient ascent.
    quadratic: the first value of the multiplier of the squared distance to the target.
    """

    cost: FlopsCost | LatencyCost
    target: float
    ramp: float = 0.5
    learning_rate: float = 0.02
    quadratic: float = 0.0

    def __post_init__(self):
        Lagrangian(self.target, self.ramp, self.quadratic)  # refuses numbers out of their range now, not after the teacher has run


class ConstrainedPruner(nn.Module):
    """Base of the pruners: Lagrangian terms on the expected cost of the last batch, and its share saved for the log."""

    masks: str = "attention"

    def __init__(self, constraint: Constraint | None):
        super().__init__()
        self.constraint = constraint
        self.lagrangian = None if constraint is None else Lagrangian(constraint.target, constraint.ramp, constraint.quadratic)
        self.saved: float | None = None

    def constraint_penalty(self, lengths: Tensor, initial: Tensor, progress: float) -> Tensor:
        """The Lagrangian terms for expected lengths (num_layers + 1, B) of texts that had `initial` (B,) tokens."""
        pruned, dense = map(global_mean, self.constraint.cost.totals(lengths, initial))
        saved = 1 - pruned / dense
        self.saved = float(saved.detach())
        if progress == 0:
            self.lagrangian.start_from(saved)
        return self.lagrangian(saved, progress)

    def multiplier_groups(self) -> Iterable[dict]:
        """The optimiser's group of the multipliers, which are driven up where the constraint is broken."""
        if self.lagrangian is None:
            return []
        return [{"params": list(self.lagrangian.parameters()), "lr": self.constraint.learning_rate, "maximize": True}]

    def constraint_metrics(self, progress: float) -> dict[str, float]:
        """What the constraint asks and what it gets, for the log."""
        if self.lagrangian is None or self.saved is None:
            return {}
        return {
            "saved": self.saved,
            "target": self.lagrangian.target_at(progress),
            "lambda_linear": float(self.lagrangian.linear.detach()),
            "lambda_quadratic": float(self.lagrangian.quadratic.detach()),
        }
