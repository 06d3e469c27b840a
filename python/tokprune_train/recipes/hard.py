"""The hard stage that every method ends with: what is pruned stands fixed, tokens are really removed, the weights adapt."""

from __future__ import annotations

from torch import nn

import tokprune_kernels as tk

from ..student import Student
from ..trainer import Settings
from ..workspace import Workspace


def run(workspace: Workspace, model: nn.Module, pruning: tk.PruningConfig, settings: Settings, distillation: float) -> nn.Module:
    """Fine-tune a model under real removal of tokens; distillation: the teacher's share of the loss."""
    model.set_pruning(pruning)
    workspace.run_stage("hard", Student(model, distillation=distillation), settings)
    return model
