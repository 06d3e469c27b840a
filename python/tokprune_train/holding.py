"""Holding the hard stage to its constraint: thresholds stand still, but the scores that they are compared with move with the weights."""

from __future__ import annotations

from collections.abc import Callable

import tokprune_kernels as tk
from torch import nn
from transformers import TrainerCallback

# Shares of the stage after which the constraint is met anew; past the last one the learning rate is too small to move scores much.
SHARES = (0.25, 0.5, 0.75, 0.9)


class HeldToConstraint(TrainerCallback):
    """Meets the constraint anew a few times on the way; what is met stands in every checkpoint (checkpoints.py).

    model: trained under its own pruning.   meet: gives the pruning, made milder or harsher, that meets it with the present weights.
    """

    def __init__(self, model: nn.Module, meet: Callable[[tk.PruningConfig], tk.PruningConfig]):
        self.model, self.meet = model, meet

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in {int(share * state.max_steps) for share in SHARES}:
            self.model.set_pruning(self.meet(tk.PruningConfig.from_dict(self.model.config.pruning)))
            self.model.train()
