"""Thresholds and keep ratios that are set, not learned, LTP's baselines among them; only the weights adapt."""

from __future__ import annotations

from torch import nn
from transformers import set_seed

import tokprune_kernels as tk

from ..objectives.ltp import threshold_line
from ..objectives.schedules import spatten_keep_ratios
from ..student import Teaching
from ..trainer import Settings
from ..workspace import Workspace
from . import hard


def thresholds(workspace: Workspace, final: float, line_start: int, settings: Settings, teaching: Teaching, **options) -> nn.Module:
    """Thresholds that rise linearly (objectives.ltp.threshold_line). options: position, score_denominator, as PruningConfig takes them."""

    def pruning(layers: int) -> tk.PruningConfig:
        # Before a layer it is the layer before that has scored, and before the first there is none.
        before = options.get("position") == "before_layer"
        line = [0.0, *threshold_line(final, layers - 1, 1)] if before and line_start else threshold_line(final, layers, line_start)
        return tk.PruningConfig.ltp(line, **options)

    return _run(workspace, pruning, settings, teaching)


def ratios(workspace: Workspace, final: float, whole: int | None, settings: Settings, teaching: Teaching, **options) -> nn.Module:
    """SpAtten's cascade (Wang et al., HPCA 2021): the first layers whole, then a linear fall to the share `final` of the tokens.

    options: as of `thresholds`.
    """
    return _run(
        workspace,
        lambda layers: tk.PruningConfig.top(spatten_keep_ratios(final, layers, whole_layers=whole), **options),
        settings,
        teaching,
    )


def given(workspace: Workspace, pruning: tk.PruningConfig, settings: Settings, teaching: Teaching) -> nn.Module:
    """Whatever has been learned or chosen elsewhere, for as many layers as the model has."""
    return _run(workspace, lambda _: pruning, settings, teaching)


def _run(workspace: Workspace, pruning, settings: Settings, teaching: Teaching) -> nn.Module:
    set_seed(settings.seed)
    model = workspace.load_model()
    workspace.teach(model, teaching)
    return hard.run(workspace, model, pruning(model.config.num_hidden_layers), settings, teaching)
