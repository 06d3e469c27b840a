"""ToP's gates (Li et al., KDD 2023): at which layers, and down to which rank, tokens are kept; random while they are learned."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .hard_concrete import hard_concrete, open_probability
from .ragged import is_first_token, per_text_sum, rank_in_text, text_index

# Beyond these a gate is open or closed but for a few percent, and would take ever longer to come back (ToP's official code).
LIMIT = math.log(100.0)
# As a keep ratio it leaves a text its first token and nothing else, counted or not, which 0.0, no valid ratio, cannot say.
FIRST_ONLY = 1e-15
COARSE = ("learned", "on")
# By how much the logits fall from the first rank to the last in `start_at_`.
_SLOPE = 10.0
_NEARLY_OPEN = 2.0


@dataclass(frozen=True)
class GateSample:
    """Values of the gates for one forward pass: fine (n, bins) in [0, 1], of each rank bin; coarse (n,), 0 = all tokens pass."""

    fine: Tensor
    coarse: Tensor


class RankGates(nn.Module):
    """For each layer that may prune: one gate that says whether it does, and one for each bin of ranks.

    A token in bin k gets the weight 1 - (1 - fine[k]) * coarse (see `rank_weights`). Put its parameters into an optimiser
    without weight decay (ToP: learning rate 0.01 to 0.04) and call `clamp_` after each step.

    Attributes: fine (n, bins) and coarse (n,), the logits; layers, the pruning layers.
    """

    def __init__(
        self,
        num_layers: int,
        layers: Sequence[int],
        bins: int = 10,
        fine_start: float | tuple[float, float] = 10.0,
        coarse_start: float = -10.0,
        coarse: str = "learned",
    ):
        """Start almost open (fine) and almost off (coarse), as ToP does.

        Args:
            num_layers: of the model.
            layers: 0-based layers at whose entry tokens may be removed, ascending, each in 1..num_layers - 1: layer 0 has
                no scores to go by.
            bins: rank bins a layer; keep ratios are multiples of 1 / bins.
            fine_start, coarse_start: first logits, clamped to +-log 100. Two numbers for fine_start: those of the first and the
                last bin, in a line. The constraint pulls at all bins alike; from equal starts they close in any order, and
                only a long training leaves the first ranks open and the last ones closed. A slope says which close first.
            coarse: "learned": as ToP. A coarse gate that starts off is open in 5% of the passes and gets a gradient only then,
                so ToP's trainings are long (40 epochs and more) and its gate rates high. "on": every layer of `layers` may
                prune, and only the fine gates decide; for short trainings. `coarse` is then no parameter but a constant.

        Raises:
            ValueError: layers, bins or coarse as above does not hold.
        """
        super().__init__()
        self.num_layers, self.layers = num_layers, _pruning_layers(layers, num_layers)
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        if coarse not in COARSE:
            raise ValueError(f"coarse must be one of {', '.join(map(repr, COARSE))}, got {coarse!r}")
        self.learns_coarse = coarse == "learned"
        count = len(self.layers)
        first_bin, last_bin = (fine_start, fine_start) if isinstance(fine_start, (int, float)) else fine_start
        starts = torch.linspace(float(first_bin), float(last_bin), bins)
        self.fine = nn.Parameter(starts.repeat(count, 1))
        coarse_logits = torch.full((count,), float(coarse_start) if self.learns_coarse else LIMIT)
        if self.learns_coarse:
            self.coarse = nn.Parameter(coarse_logits)
        else:  # no parameter: one without a gradient stops data-parallel training
            self.register_buffer("coarse", coarse_logits)
        self.clamp_()

    @torch.no_grad()
    def start_at_(self, ratios: Sequence[float]) -> None:
        """Set the fine gates such that each layer keeps about its ratio: open up to it, closed beyond it, unsure around it.

        A ratio of 1 leaves all of a layer's gates nearly open.
        """
        bins = self.fine.shape[1]
        middles = (torch.arange(bins, device=self.fine.device) + 0.5) / bins
        wanted = self.fine.new_tensor(list(ratios))[:, None]
        # A gate whose logit is `even` is open with one half.
        even = -torch.logit(open_probability(self.fine.new_zeros(())))
        logits = even + (wanted - middles) * _SLOPE
        self.fine.copy_(torch.where(wanted < 1, logits, logits.clamp(min=_NEARLY_OPEN)))
        self.clamp_()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring the logits back into +-log 100; call it after each optimiser step."""
        self.fine.clamp_(-LIMIT, LIMIT)
        self.coarse.clamp_(-LIMIT, LIMIT)

    def sample(self, generator: torch.Generator | None = None) -> GateSample:
        """Random gates for a training step, differentiable with respect to the logits.

        Fine gates are hard-concrete values in [0, 1]. Coarse gates are 0 or 1, 1 where their hard-concrete value is above 0
        (which has the probability that `keep_probability` counts with), with that value's gradient (straight-through).

        generator: of any device, or None for torch's own on the logits'. One of the CPU draws the same gates on every device. In
            data-parallel training give all processes the same seed: their batches are then one batch under one sample, as
            in a single process.
        """
        fine = hard_concrete(self.fine, self._uniform(self.fine, generator))
        if not self.learns_coarse:
            return GateSample(fine, torch.ones_like(self.coarse))
        soft = hard_concrete(self.coarse, self._uniform(self.coarse, generator))
        hard = (soft > 0).to(soft.dtype)
        return GateSample(fine, soft + (hard - soft).detach())

    @torch.no_grad()
    def deterministic(self) -> GateSample:
        """The gates for evaluation, all 0 or 1: exactly what `keep_ratios` exports.

        A layer has as many bins off as it has expected zeros, rounded; a coarse gate is on iff it is open with more than
        one half. ToP switches off the bins of the lowest logits, in practice the last ones. Those of the lowest
        ranks are taken here, whatever the order of the logits: a keep ratio can say nothing else, and an evaluation that
        switched off others would be of a model that cannot be exported.
        """
        bins = self.fine.shape[1]
        off = (bins - open_probability(self.fine).sum(dim=1)).round()
        index = torch.arange(bins, device=off.device)
        fine = (index < (bins - off)[:, None]).to(self.fine.dtype)
        return GateSample(fine, (self._coarse_probability() > 0.5).to(self.fine.dtype))

    def keep_probability(self) -> Tensor:
        """(n,): the expected share of a text's tokens that each pruning layer keeps, 1 - (1 - mean_bin P_fine) * P_coarse.

        P is a gate's probability to be above 0. Differentiable; the first token is not counted (`expected_lengths` does).
        """
        return 1 - (1 - open_probability(self.fine).mean(dim=1)) * self._coarse_probability()

    def keep_ratios(self) -> list[float]:
        """One ratio for each layer of the model, for PruningConfig.top (position "before_layer"); 1.0 = nothing is pruned there.

        The bins of training are those of the tokens past the first: with count_first=False the runtime keeps as many, else for
        the same ratio as many or one fewer. Where all bins are off the ratio is tiny: the first token alone stays.
        """
        gates = self.deterministic()
        kept = torch.where(gates.coarse > 0, gates.fine.double().mean(dim=1), 1.0)
        ratios = [1.0] * self.num_layers
        for layer, ratio in zip(self.layers, kept.tolist(), strict=True):
            ratios[layer] = max(ratio, FIRST_ONLY)
        return ratios

    def extra_repr(self) -> str:
        return f"layers={list(self.layers)}, bins={self.fine.shape[1]}, learns_coarse={self.learns_coarse}"

    def _coarse_probability(self) -> Tensor:
        return open_probability(self.coarse) if self.learns_coarse else torch.ones_like(self.coarse)

    @staticmethod
    def _uniform(logits: Tensor, generator: torch.Generator | None) -> Tensor:
        drawn_on = logits.device if generator is None else generator.device
        return torch.rand(logits.shape, generator=generator, dtype=logits.dtype, device=drawn_on).to(logits.device)


def rank_bins(scores: Tensor, alive: Tensor, cu_seqlens: Tensor, bins: int) -> Tensor:
    """The rank bin of each token: floor(r / n * bins), r its rank (from 0) by descending score among the n of its text.

    The n are the tokens alive other than the text's first. Bin 0 holds the most important ones.

    Args:
        scores: (T,) float, importance in the layer before. Ties go to the earlier token; a NaN ranks first.
        alive: (T,) bool, the tokens that no earlier layer has dropped.
        cu_seqlens: (B + 1,) integers, row bounds of the texts, first and dead tokens included.
        bins: at least 1.

    Returns:
        (T,) int64, -1 for the first token of a text and for dead ones.

    Raises:
        ValueError: bins is not positive, the shapes differ, or cu_seqlens does not end at T.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    candidates = alive & ~is_first_token(cu_seqlens, len(alive))
    ranks = rank_in_text(scores, candidates, cu_seqlens)
    counts = per_text_sum(candidates.long(), cu_seqlens)[text_index(cu_seqlens, len(ranks))]
    # In integers: in floating point r / n * bins can fall just below the whole number that it is.
    return torch.where(candidates, (ranks * bins).div(counts.clamp(min=1), rounding_mode="floor"), -1)


def rank_weights(scores: Tensor, alive: Tensor, cu_seqlens: Tensor, fine_z: Tensor, coarse_z: Tensor) -> Tensor:
    """How much of each token a layer's gates let pass: 1 - (1 - fine_z[bin]) * coarse_z (ToP).

    Args:
        scores, alive, cu_seqlens: see `rank_bins`.
        fine_z: (bins,) float, values of the layer's fine gates.
        coarse_z: scalar, the value of its coarse gate.

    Returns:
        (T,) in the dtype of the gates: 1 for a text's first token, 0 for dead ones. Gradients reach fine_z and coarse_z; the
        scores, which are only ranked, get none.

    Raises:
        ValueError: see `rank_bins`; fine_z is not (bins,).
    """
    if fine_z.dim() != 1:
        raise ValueError(f"fine_z must be (bins,), the gates of one layer, got shape {tuple(fine_z.shape)}")
    bins = rank_bins(scores, alive, cu_seqlens, len(fine_z))
    passed = (1 - (1 - fine_z) * coarse_z).index_select(0, bins.clamp(min=0))
    others = is_first_token(cu_seqlens, len(scores)).to(passed.dtype)
    return torch.where(bins >= 0, passed, others)


def _pruning_layers(layers: Sequence[int], num_layers: int) -> tuple[int, ...]:
    layers = tuple(layers)
    ascending = all(left < right for left, right in zip(layers, layers[1:]))
    if not layers or not ascending or layers[0] < 1 or layers[-1] >= num_layers:
        raise ValueError(
            f"layers must be ascending and in 1..{num_layers - 1} for a model of {num_layers} layers (no scores exist "
            f"before layer 0), got {list(layers)}"
        )
    return layers
