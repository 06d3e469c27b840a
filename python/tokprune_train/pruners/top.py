"""Learned keep ratios (ToP, Li et al., KDD 2023): gates over layers and rank bins under a constraint."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

import tokprune_kernels as tk

from ..objectives.constraint import expected_lengths
from ..objectives.gates import RankGates, rank_weights
from ..objectives.ragged import is_first_token
from ..objectives.ranking import ranking_distillation
from .base import ConstrainedPruner, Constraint


class LearnedKeepRatios(ConstrainedPruner):
    """Which share of the tokens alive enters each layer, ranked by the importance of the layer before.

    gates: see RankGates.   constraint: the share of the cost to save.   learning_rate: of the gates.
    ranking: alpha of the ranking distillation from the teacher's last-layer importance, which falls to 1% of it as the
        constraint's target is reached.   ranked_layers: layers of the student that are taught so.
    seed: of the gates' samples, the same on every process and after resuming.
    masks: "attention", or "hidden" as in ToP's own training.
    score_gradient: ranks let no gradient reach the scores, so in ToP the task has no say in which tokens rank high. Where this is
        above 0, a score (in units of its text's mean) gets that multiple of the gradient of its token's weight (straight-
        through): tokens that the task needs are drawn up the ranks. 0: as in ToP.
    """

    score_denominator = "kept"  # a ranking does not depend on it

    def __init__(
        self,
        gates: RankGates,
        constraint: Constraint,
        learning_rate: float = 0.02,
        ranking: float = 0.0,
        ranked_layers: Iterable[int] = (),
        seed: int = 0,
        masks: str = "attention",
        score_gradient: float = 0.0,
    ):
        super().__init__(constraint)
        self.score_gradient = score_gradient
        self.gates, self.learning_rate, self.masks = gates, learning_rate, masks
        self.ranking, self.ranked_layers, self.seed = ranking, tuple(ranked_layers), seed
        self._scores: dict[int, Tensor] = {}

    def begin(self, step: int, progress: float) -> None:
        """Forget the last batch and sample the gates for this one."""
        self._scores = {}
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        self._sample = self.gates.sample(generator)

    def forward(self, layer: int, importance: Tensor, weights: Tensor, cu_seqlens: Tensor) -> Tensor | None:
        self._cu_seqlens = cu_seqlens
        if layer in self.ranked_layers:
            self._scores[layer] = importance
        if layer + 1 not in self.gates.layers:
            return None
        gate = self.gates.layers.index(layer + 1)
        fine, coarse = self._sample.fine[gate], self._sample.coarse[gate]
        passed = rank_weights(importance, weights > 0, cu_seqlens, fine, coarse)
        if self.score_gradient:
            relative = importance * cu_seqlens.diff().repeat_interleave(cu_seqlens.diff(), output_size=len(importance))
            drawn = self.score_gradient * relative.masked_fill(is_first_token(cu_seqlens, len(relative)), 0.0)
            passed = passed + (drawn - drawn.detach())
        return weights * passed

    def penalty(self, progress: float, teacher_importance: Tensor | None) -> Tensor:
        """The Lagrangian terms, and the ranking distillation."""
        initial = self._cu_seqlens.diff().float()
        keep = self.gates.keep_probability()
        lengths = expected_lengths(keep, self.gates.layers, self.gates.num_layers, initial)
        penalty = self.constraint_penalty(lengths, initial, progress)
        if self.ranking and self._scores:
            if teacher_importance is None:
                raise ValueError("ranking distillation needs teacher_importance in the batch: run the teacher over the rows first")
            ramped = self.lagrangian.target_at(progress) / self.constraint.target
            losses = [ranking_distillation(scores, teacher_importance, self._cu_seqlens) for scores in self._scores.values()]
            penalty = penalty + self.ranking * max(0.01, 1 - ramped) * torch.stack(losses).sum()
        return penalty

    def parameter_groups(self) -> Iterable[dict]:
        """The gates with their own learning rate, and the multipliers."""
        return [{"params": list(self.gates.parameters()), "lr": self.learning_rate}, *self.multiplier_groups()]

    def after_step(self) -> None:
        """Keep the gates' logits where their probabilities can still move."""
        self.gates.clamp_()

    def metrics(self, progress: float) -> dict[str, float]:
        """Keep ratios by layer and the constraint, for the log."""
        ratios = {f"keep_{layer}": ratio for layer, ratio in enumerate(self.gates.keep_ratios())}
        return ratios | self.constraint_metrics(progress)

    def pruning(self) -> tk.PruningConfig:
        """What was learned, for real removal."""
        return tk.PruningConfig.top(keep_ratios=self.gates.keep_ratios())
