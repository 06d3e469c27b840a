"""Constraint-aware and ranking-distilled token pruning (ToP, Li et al., KDD 2023): gates under a constraint, then real removal."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn
from transformers import set_seed

from ..calibration.starts import ratio_shapes
from ..objectives.gates import RankGates
from ..pruners.base import Constraint
from ..pruners.top import LearnedKeepRatios
from ..student import Teaching
from ..trainer import Settings
from ..workspace import Workspace
from . import hard


@dataclass(frozen=True)
class Options:
    """Of the method.

    bins: rank bins a layer.   coarse: "learned" or "on", see RankGates.   gate_lr: learning rate of the gates.
    ranking: alpha of the ranking distillation.   score_temperature, position, count_first: see LearnedKeepRatios.
    teaching: what the dense model adds to the loss.
    """

    bins: int = 10
    coarse: str = "on"
    gate_lr: float = 0.04
    ranking: float = 1e-2
    teaching: Teaching = Teaching()
    score_temperature: float = 0.3
    position: str = "before_layer"
    count_first: bool = False
    masks: str = "attention"
    soft: Settings = field(default_factory=Settings)
    hard: Settings = field(default_factory=Settings)


def run(workspace: Workspace, options: Options, constraint: Constraint) -> nn.Module:
    """Soft stage, then hard stage. Both start from the dense model, which also teaches."""
    set_seed(options.soft.seed)
    model = workspace.load_model()
    workspace.teach(model, options.teaching, importance=options.ranking > 0)
    layers = model.config.num_hidden_layers
    pruner = LearnedKeepRatios(
        RankGates(layers, range(1, layers), options.bins, coarse=options.coarse),
        constraint,
        learning_rate=options.gate_lr,
        ranking=options.ranking,
        ranked_layers=range(1, max(2, layers // 3)),
        seed=options.soft.seed,
        masks=options.masks,
        score_temperature=options.score_temperature,
        position=options.position,
        count_first=options.count_first,
    )
    if options.coarse == "on":  # else the layers that prune are chosen first, as in ToP from none
        pruner.start_from(workspace.nearest_start(model, list(ratio_shapes(layers, options.position)), constraint))
    workspace.run_stage("soft", workspace.student(model, pruner, options.teaching), options.soft)
    return hard.run(workspace, model, pruner.pruning(), options.hard, options.teaching, constraint)
