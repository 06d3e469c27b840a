"""A whole pruned encoder on a padded batch, as one op."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..reference.padded_encoder import DENOMINATORS
from . import checks
from .arguments import dense, encoder_codes, traced

_padded_encoder = torch.ops.tokprune.padded_encoder.default


def padded_encoder(
    x: Tensor,
    attention_mask: Tensor,
    weights: Sequence[Tensor],
    eps: Sequence[float],
    heads: int,
    activation: str,
    scale: float,
    *,
    thresholds: Sequence[float] | None = None,
    keep_ratios: Sequence[float] | None = None,
    before_layer: bool = False,
    score_denominator: str | int = "kept",
    protected: Tensor | None = None,
    protect_first: bool = True,
    readout: str = "all",
    count_first: bool = True,
) -> Tensor:
    """`encoder` between padded tensors: no size hangs on the data, so programs that were traced with it run for any mask.

    It packs, runs and restores inside. Exported models are made of it (LTP, Kim et al., KDD 2022; ToP, Li et al., KDD 2023). On a GPU
    the plain PyTorch reference runs. For inference, it has no gradient.

    Args:
        x: (B, L, H) float32 or bfloat16 states at the entry of the first layer; those at padding are not read.
        attention_mask: (B, L) bool, uint8, int32, int64 or float32; non-zero = live, on any side and with holes.
        weights, eps, heads, activation, scale, thresholds, keep_ratios, before_layer, protect_first, count_first: as
            in `encoder`.
        score_denominator: "kept", "sqrt_kept", "initial" or a positive int, see PruningConfig.
        protected: (B, L) bool, never pruned.
        readout: "all", "survivor_mean", "first" or "first_only", as in `encoder`.

    Returns:
        (B, L, H): each token's last state, as the readout says, zeros at padding; for "first" and "first_only" (B, H), each
        text's first live token, zeros for a text without one. x's dtype.

    Raises:
        TypeError: wrong type or dtype.   ValueError: wrong shape, number, device or value.
    """
    activation_code, readout_code, keep, topk = encoder_codes(activation, readout, thresholds, keep_ratios)
    options = (topk, before_layer, denominator_code(score_denominator), protected, protect_first, readout_code, count_first)
    arguments = (x, attention_mask, list(weights), list(eps), heads, activation_code, scale, keep, *options)
    if not traced():
        checks.padded_encoder(*arguments)
    return _padded_encoder(*(dense(value) if isinstance(value, Tensor) else value for value in arguments))


def denominator_code(score_denominator: str | int) -> int:
    """The op's `denominator` of a score denominator; ValueError for one that there is not."""
    if score_denominator in DENOMINATORS:
        return DENOMINATORS[score_denominator]
    if isinstance(score_denominator, bool) or not isinstance(score_denominator, int) or score_denominator < 1:
        known = ", ".join(map(repr, DENOMINATORS))
        raise ValueError(f"score_denominator must be {known} or a positive int, got {score_denominator!r}")
    return score_denominator
