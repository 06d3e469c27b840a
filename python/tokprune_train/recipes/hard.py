"""The hard stage that every method ends with: tokens are really removed, the weights adapt, what is learned of pruning stands."""

from __future__ import annotations

from torch import nn

import tokprune_kernels as tk

from ..calibration.fit import fit_to_target
from ..holding import HeldToConstraint
from ..pruners.base import Constraint
from ..student import Teaching
from ..trainer import Settings
from ..workspace import Workspace


def run(
    workspace: Workspace,
    model: nn.Module,
    pruning: tk.PruningConfig,
    settings: Settings,
    teaching: Teaching = Teaching(),
    constraint: Constraint | None = None,
) -> nn.Module:
    """Fine-tune a model under real removal of tokens.

    teaching: what the teacher, which has spoken on the rows, adds to the loss.   constraint: met exactly before the stage begins, and
    for thresholds again on the way (holding): what they save hangs on the weights.
    """
    callbacks = []
    if constraint is not None and not pruning.is_dense:
        rows = workspace.calibration_rows()

        def meet(pruning: tk.PruningConfig) -> tk.PruningConfig:
            return fit_to_target(model, pruning, constraint.cost, constraint.target, rows, workspace.collator)

        pruning = meet(pruning)
        if pruning.criterion == "threshold":
            callbacks.append(HeldToConstraint(model, meet))
    model.set_pruning(pruning)
    workspace.run_stage("hard", workspace.student(model, None, teaching), settings, callbacks)
    return model
