"""Ordinary fine-tuning, packed: the model that pruning starts from, and its teacher."""

from __future__ import annotations

from torch import nn
from transformers import set_seed

from ..student import Student
from ..trainer import Settings
from ..workspace import Workspace


def run(workspace: Workspace, settings: Settings) -> nn.Module:
    """Fine-tune the model on the task; nothing is pruned."""
    set_seed(settings.seed)
    model = workspace.load_model()
    workspace.run_stage("dense", Student(model), settings)
    return model
