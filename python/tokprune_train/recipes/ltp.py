"""Learned Token Pruning (Kim et al., KDD 2022): thresholds learned through soft masks, then real removal."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn
from transformers import set_seed

from ..calibration.scores import quantile_line, sample_scores
from ..calibration.starts import POWERS, check_power, threshold_shapes
from ..objectives.ltp import threshold_line
from ..pruners.base import Constraint
from ..pruners.ltp import LearnedThresholds
from ..student import Teaching
from ..trainer import Settings
from ..workspace import Workspace
from . import hard


@dataclass(frozen=True)
class Options:
    """Of the method.

    start_power: under a constraint the power of the depth that the first thresholds rise as; None: the best of some.
    start_threshold, line_start: of the thresholds' first line, see objectives.ltp.threshold_line; None: under a constraint the best of some
    lines that meet it (calibration.starts), else start: a line that ends above this share of the last layer's scores.
    regularizer: LTP's lambda, where there is no constraint.   temperature: first and last, in units of the median score.
    threshold_lr: learning rate of the thresholds in that unit.   teaching: what the dense model adds to the loss.
    """

    start: float = 0.3
    start_power: float | None = None
    start_threshold: float | None = None
    line_start: int = 0
    regularizer: float = 0.05
    temperature: tuple[float, float] = (0.3, 0.05)
    threshold_lr: float = 0.01
    teaching: Teaching = Teaching()
    masks: str = "attention"
    score_denominator: str | int = "kept"
    soft: Settings = field(default_factory=Settings)
    hard: Settings = field(default_factory=Settings)


def run(workspace: Workspace, options: Options, constraint: Constraint | None) -> nn.Module:
    """Soft stage, then hard stage. Both start from the dense model, which also teaches.

    Raises ValueError for a start_power that is negative, or that nothing reads.
    """
    if options.start_power is not None and (constraint is None or options.start_threshold is not None):
        raise ValueError("start_power shapes the start that meets a constraint: give a speedup, and no start_threshold")
    if options.start_power is not None:
        check_power(options.start_power)  # now, not after the teacher has run
    set_seed(options.soft.seed)
    model = workspace.load_model()
    workspace.teach(model, options.teaching)
    scores = sample_scores(model, workspace.calibration_rows(), workspace.collator, options.score_denominator)
    if options.start_threshold is not None:
        base = threshold_line(options.start_threshold, len(scores), options.line_start)
    elif constraint is None:
        base = quantile_line(scores, options.start)
    else:
        # From there on the constraint holds, and what is learned is where to prune, not how much.
        powers = POWERS if options.start_power is None else (options.start_power,)
        shapes = threshold_shapes(len(scores), float(scores.median()), powers, score_denominator=options.score_denominator)
        base = workspace.nearest_start(model, list(shapes), constraint).thresholds
    pruner = LearnedThresholds(
        base,
        unit=float(scores.median()),
        temperature=options.temperature,
        learning_rate=options.threshold_lr,
        regularizer=0.0 if constraint else options.regularizer,
        constraint=constraint,
        masks=options.masks,
        score_denominator=options.score_denominator,
    )
    workspace.run_stage("soft", workspace.student(model, pruner, options.teaching), options.soft)
    return hard.run(workspace, model, pruner.pruning(), options.hard, options.teaching, constraint)
