"""A whole pruned encoder as one op."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks
from .arguments import dense, encoder_codes, traced

_encoder = torch.ops.tokprune.encoder.default


def encoder(
    x: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    weights: Sequence[Tensor],
    eps: Sequence[float],
    heads: int,
    activation: str,
    scale: float,
    *,
    thresholds: Sequence[float] | None = None,
    keep_ratios: Sequence[float] | None = None,
    before_layer: bool = False,
    denominators: Tensor | None = None,
    protected: Tensor | None = None,
    protect_first: bool = True,
    readout: str = "all",
    token_idx: Tensor | None = None,
    places: int = 0,
    sqrt_rows: bool = False,
    count_first: bool = True,
) -> Tensor:
    """All layers of a post-norm encoder (BERT's kind) on packed tokens, pruned on the way; for inference, it has no gradient.

    One call instead of some eight a layer: no Python between the layers, and no memory allocated but the result.

    Args:
        x: (T, H) float32 or bfloat16 states at the entry of the first layer.
        cu_seqlens: (B + 1,) int32 row bounds of the sequences.   max_seqlen: at least the longest.
        weights: twelve tensors a layer, in x's dtype: packed qkv (`pack_weight` of the (3 H, H) weight of query, key and value
            one after the other) and its bias (3 H,), packed attention output and bias, LayerNorm weight and bias (H,), packed
            up-projection and bias (F,), packed down-projection and bias (H,), LayerNorm weight and bias (H,).
        eps: two a layer, those of its LayerNorms.
        heads: attention heads; they divide H into a multiple of 8 up to 256.
        activation: "none", "gelu" (with erf), "gelu_tanh" or "relu".
        scale: factor on the attention scores.
        thresholds, keep_ratios: one a layer, at most one of the two; a threshold <= 0 or a ratio of 1 prunes nothing there,
            as neither of the two does. See `keep_threshold` (LTP, Kim et al., KDD 2022) and `keep_topk` (ToP, Li et al., KDD 2023).
        before_layer: decide at the entry of a layer by the importance in the one before (ToP), not after its attention (LTP).
        denominators: (B,) float32, see `attn_importance`.   sqrt_rows: without them divide by the square root of the rows alive in
            each layer, not by their number.
        protected: (T,) bool, never pruned.   protect_first: nor is the first token of a sequence.
        count_first: as in `keep_topk`; True with thresholds.
        readout: "all": every token's last state, survivors' final ones and the exit states of those pruned; "survivor_mean": the
            same, but in the rows of those pruned the mean of their sequence's survivors; "first": those of the first tokens;
            "first_only": the same, and the last layer computes nothing else.
        token_idx: (T,) int32, ascending: each token's row in the result; for "all" and "survivor_mean".   places: rows of the result.

    Returns:
        (places, H) with zeros where no token belongs, or for "first" and "first_only" (B, H), zeros for an empty sequence; x's dtype.

    Raises:
        TypeError: wrong type or dtype.   ValueError: wrong shape, number, device or value.
    """
    activation_code, readout_code, keep, topk = encoder_codes(activation, readout, thresholds, keep_ratios)
    options = (denominators, protected, protect_first, readout_code, token_idx, places, sqrt_rows, count_first)
    layers = (list(weights), list(eps), heads, activation_code, scale)
    arguments = (x, cu_seqlens, max_seqlen, *layers, keep, topk, before_layer, *options)
    if not traced():
        checks.encoder(*arguments)
    return _encoder(*(dense(value) if isinstance(value, Tensor) else value for value in arguments))
