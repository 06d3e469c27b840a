"""Learned thresholds (LTP, Kim et al., KDD 2022): the soft stage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

import tokprune_kernels as tk

from ..objectives.ltp import mask_regularizer, soft_mask
from ..objectives.ragged import is_first_token, per_text_sum
from .base import ConstrainedPruner, Constraint


class LearnedThresholds(ConstrainedPruner):
    """One threshold a layer, theta_l = base_l + unit * delta_l, that sigmoid masks let gradients reach.

    base: (num_layers,) thresholds to start from (see calibration.scores, objectives.ltp.threshold_line).
    unit: size of a typical score; learning rate and temperatures count in it, so that they suit short and long texts alike.
    temperature: (first, last), T of the masks in units, falling geometrically: the masks harden as the training goes on.
    learning_rate: of delta.
    regularizer: lambda of LTP's sum_l mean_i M_i^l.   constraint: in its place, a share of the cost to save.
    masks, score_denominator: see tokprune_kernels' soft pruning; LTP's own training has masks="hidden".
    protect_first: never weigh down a text's first token.
    """

    def __init__(
        self,
        base: Sequence[float],
        unit: float,
        temperature: tuple[float, float] = (0.2, 0.05),
        learning_rate: float = 0.01,
        regularizer: float = 0.0,
        constraint: Constraint | None = None,
        masks: str = "attention",
        score_denominator: str | int = "kept",
        protect_first: bool = True,
    ):
        super().__init__(constraint)
        if not unit > 0:
            raise ValueError(f"unit must be positive, the size of a typical score, got {unit}")
        self.register_buffer("base", torch.tensor(list(base), dtype=torch.float32))
        self.unit = float(unit)
        self.delta = nn.Parameter(torch.zeros(len(base)))
        self.first_temperature, self.last_temperature = temperature
        self.learning_rate, self.regularizer = learning_rate, regularizer
        self.masks, self.score_denominator, self.protect_first = masks, score_denominator, protect_first
        self.temperature = self.first_temperature
        self._alive: list[Tensor] = []
        self._cu_seqlens: Tensor | None = None

    @property
    def thresholds(self) -> Tensor:
        """(num_layers,) theta."""
        return self.base + self.unit * self.delta

    def begin(self, step: int, progress: float) -> None:
        """Forget the last batch; the masks harden with the progress."""
        self._alive = []
        self.temperature = self.first_temperature * (self.last_temperature / self.first_temperature) ** progress

    def forward(self, layer: int, importance: Tensor, weights: Tensor, cu_seqlens: Tensor) -> Tensor:
        mask = soft_mask(importance, self.thresholds[layer], self.temperature * self.unit)
        if self.protect_first:
            mask = mask.masked_fill(is_first_token(cu_seqlens, len(mask)), 1.0)
        # What multiplies hidden states is each layer's own mask, as LTP has it; what counts in attention is all so far.
        alive = mask if self.masks == "hidden" else weights * mask
        self._alive.append(alive)
        self._cu_seqlens = cu_seqlens
        return alive

    def penalty(self, progress: float, teacher_importance: Tensor | None) -> Tensor:
        """lambda * sum_l mean M, or the Lagrangian terms."""
        penalty = self.regularizer * mask_regularizer(self._alive, self._cu_seqlens)
        if self.constraint is not None:
            initial = self._cu_seqlens.diff().float()
            lengths = torch.stack([initial, *(per_text_sum(alive, self._cu_seqlens) for alive in self._alive)])
            penalty = penalty + self.constraint_penalty(lengths, initial, progress)
        return penalty

    def parameter_groups(self) -> Iterable[dict]:
        """The thresholds with their own learning rate, and the multipliers."""
        return [{"params": [self.delta], "lr": self.learning_rate}, *self.multiplier_groups()]

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the thresholds at 0 or above: below it nothing is pruned either, and all masks are out of reach of gradients.

        A constraint whose target rises from 0 drives them down at first; from below 0 they did not come back.
        """
        self.delta.clamp_(min=-self.base / self.unit)

    def metrics(self, progress: float) -> dict[str, float]:
        """Thresholds by layer and the constraint, for the log."""
        thetas = {f"theta_{layer}": theta for layer, theta in enumerate(self.thresholds.tolist())}
        return thetas | {"temperature": self.temperature} | self.constraint_metrics(progress)

    def pruning(self) -> tk.PruningConfig:
        """What was learned, for real removal."""
        return tk.PruningConfig.ltp(
            thresholds=[max(0.0, theta) for theta in self.thresholds.tolist()],
            score_denominator=self.score_denominator,
            protect_first=self.protect_first,
        )
