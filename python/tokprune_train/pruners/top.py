"""Learned keep ratios (ToP, Li et al., KDD 2023): gates over layers and rank bins under a constraint."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

import tokprune_kernels as tk

from ..objectives.constraint import expected_lengths
from ..objectives.gates import FIRST_ONLY, RankGates, rank_weights
from ..objectives.ragged import is_first_token, per_text_sum, rank_in_text, text_index
from ..objectives.ranking import ranking_distillation
from .base import ConstrainedPruner, Constraint


class LearnedKeepRatios(ConstrainedPruner):
    """Which share of the tokens alive enters each layer, ranked by the importance of the layer before.

    gates: see RankGates.   constraint: the share of the cost to save.   learning_rate: of the gates.
    ranking: alpha of the ranking distillation from the teacher's last-layer importance, which falls to 1% of it as the
        constraint's target is reached.   ranked_layers: layers of the student that are taught so.
    seed: of the gates' samples, the same on every process and after resuming.
    position: where the tokens leave that a layer's importance decides against. "before_layer": at the entry of the next layer, as in
        ToP. "after_attention": at once, before the rest of their own layer, which nothing but their exit state needs: the same
        states of the others for fewer FLOPs. The last layer then keeps the first token alone, the one that the head reads.
    count_first: of the keep ratios that come out. False, as in ToP: those of the tokens past the first, which the gates are over.
    masks: "attention", or "hidden" as in ToP's own training: a layer's output is multiplied by (1 - (1 - z) p) [weight before > 0],
        z and p its own gates.
    score_temperature: ranks let no gradient reach the scores, so in ToP the task has no say in which tokens rank high. Where this
        is above 0, a score gets the gradient that it would have under a sigmoid of this width around the score at which the
        open bins end (straight-through; in units of the text's mean score), as in LTP: tokens near the cut that the
        task needs are drawn up the ranks. 0: as in ToP.
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
        score_temperature: float = 0.0,
        position: str = "before_layer",
        count_first: bool = False,
    ):
        super().__init__(constraint)
        self.position, self.count_first = position, count_first
        self.score_temperature = score_temperature
        self.gates, self.learning_rate, self.masks = gates, learning_rate, masks
        self.ranking, self.ranked_layers, self.seed = ranking, tuple(ranked_layers), seed
        self._scores: dict[int, Tensor] = {}

    def expected(self, initial: Tensor) -> Tensor:
        """(num_layers + 1, B) expected tokens of texts that have `initial` (B,), differentiable; see `expected_lengths`."""
        keep = self.gates.keep_probability()
        lengths = expected_lengths(keep, self.gates.layers, self.gates.num_layers, initial)
        if self.position == "after_attention":
            lengths = torch.cat([lengths[:-1], initial.clamp(max=1)[None]])
        return lengths

    def start_from(self, pruning: tk.PruningConfig) -> None:
        """Set the gates to the keep ratios of a configuration such as `pruning()` gives."""
        ratios = pruning.keep_ratios
        self.gates.start_at_(ratios[:-1] if self.position == "after_attention" else ratios[1:])

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
        alive = weights > 0
        passed = rank_weights(importance, alive, cu_seqlens, fine, coarse)
        if self.score_temperature:
            passed = passed + _drawn(importance, alive, cu_seqlens, float(fine.detach().mean()), self.score_temperature)
        # 0 for a token that an earlier layer has dropped. What multiplies hidden states is each layer's own weight: they have been
        # multiplied by the earlier ones.
        return passed if self.masks == "hidden" else weights * passed

    def penalty(self, progress: float, teacher_importance: Tensor | None) -> Tensor:
        """The Lagrangian terms, and the ranking distillation."""
        initial = self._cu_seqlens.diff().float()
        penalty = self.constraint_penalty(self.expected(initial), initial, progress)
        if self.ranking and self._scores:
            if teacher_importance is None:
                raise ValueError("ranking distillation needs teacher_importance in the batch: run the teacher over the rows first")
            ramped = self.lagrangian.ramped(progress)
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
        ratios = self.gates.keep_ratios()
        if self.position == "after_attention":
            ratios = [*ratios[1:], FIRST_ONLY]
        return tk.PruningConfig.top(keep_ratios=ratios, position=self.position, count_first=self.count_first)


def _drawn(scores: Tensor, alive: Tensor, cu_seqlens: Tensor, kept: float, temperature: float) -> Tensor:
    """(T,) zeros with the gradient of sigmoid((s - s at the cut) / temperature), s in means of the text; kept: share above the cut."""
    candidates = alive & ~is_first_token(cu_seqlens, len(scores))
    texts = text_index(cu_seqlens, len(scores))
    counts = per_text_sum(candidates.float(), cu_seqlens)
    relative = scores * cu_seqlens.diff()[texts]
    ranks = rank_in_text(scores.detach(), candidates, cu_seqlens)
    at_cut = candidates & (ranks == (kept * counts).floor().clamp(max=counts - 1)[texts].long())
    cut = per_text_sum(relative.detach() * at_cut, cu_seqlens)[texts]
    soft = torch.sigmoid((relative - cut) / temperature) * candidates
    return soft - soft.detach()
