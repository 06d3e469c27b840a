"""Holding the hard stage to its constraint: thresholds stand still, but the scores that they are compared with move with the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import tokprune_kernels as tk
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

# Shares of the stage after which the constraint is met anew; past the last one the learning rate is too small to move scores much.
SHARES = (0.25, 0.5, 0.75, 0.9)
_FILE = "pruning.json"


class HeldToConstraint(TrainerCallback):
    """Meets the constraint anew a few times on the way.

    model: trained under its own pruning.   meet: gives the pruning, made milder or harsher, that meets it with the present weights.
    """

    def __init__(self, model: nn.Module, meet: Callable[[tk.PruningConfig], tk.PruningConfig]):
        self.model, self.meet = model, meet

    def on_train_begin(self, args, state, control, **kwargs):
        """Where a checkpoint is gone on from, its weights came with this pruning."""
        saved = _checkpoint(args, state) / _FILE
        if state.global_step and saved.is_file():
            self.model.set_pruning(tk.PruningConfig.from_dict(json.loads(saved.read_text())))

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in {int(share * state.max_steps) for share in SHARES}:
            self.model.set_pruning(self.meet(tk.PruningConfig.from_dict(self.model.config.pruning)))
            self.model.train()

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            (_checkpoint(args, state) / _FILE).write_text(json.dumps(self.model.config.pruning))


def _checkpoint(args, state) -> Path:
    return Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
