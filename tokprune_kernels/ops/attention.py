"""Attention within each sequence of a packed batch, and the importance of its tokens."""

import torch
from torch import Tensor

from . import checks
from .arguments import dense, head_rows, traced

_attn_importance = torch.ops.tokprune.attn_importance.default
_varlen_attention = torch.ops.tokprune.varlen_attention.default


def attn_importance(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    scale: float,
    denominators: Tensor | None = None,
    key_bias: Tensor | None = None,
    row_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention within each sequence that also returns how much attention each token receives.

    s_i = 1/(N_h D) sum_h sum_q r_q A_h[q, i] with A = softmax(scale QK^T + b) and q over the rows of i's sequence (LTP, Kim et
    al., KDD 2022: the importance score, where b = 0 and r = 1). No length x length matrix is stored. Differentiable in both
    outputs, to any order.

    Args:
        q, k, v: (T, N_h, d) float32 or bfloat16 (float16 and float64 on the reference); views of one fused QKV are read
            as they are.
        cu_seqlens: (B + 1,) int32, row bounds of the sequences: starts at 0, never decreases, ends at T.
        max_seqlen: length of the longest sequence, or more.
        scale: factor on the scores, 1/sqrt(d) in BERT.
        denominators: (B,) float32, D of each sequence, positive; None: its number of rows, so that its scores sum to 1.
        key_bias: (T,) float32 (float64 for float64), b, finite: added to every score of a key. log w weighs the key by w in
            the softmax; -1e4 takes it out. None: 0.
        row_weights: (T,) float32 (float64 for float64), r, finite, not negative: how much a query row counts in the
            importance; the context does not depend on it, nor does D. None: 1.

    Returns:
        context (T, N_h, d) in q's dtype and importance (T,) float32 (float64 for float64).

    Raises:
        TypeError: wrong type or dtype.   ValueError: wrong shape, device or value.
    """
    if not traced():
        checks.attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators, key_bias, row_weights)
    optional = (dense(denominators), dense(key_bias), dense(row_weights))
    return _attn_importance(*head_rows(q, k, v), dense(cu_seqlens), max_seqlen, scale, *optional)


def varlen_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, scale: float
) -> Tensor:
    """The context (T, N_h, d) of `attn_importance` without the importance; same arguments, errors and gradients."""
    if not traced():
        checks.varlen_attention(q, k, v, cu_seqlens, max_seqlen, scale)
    return _varlen_attention(*head_rows(q, k, v), dense(cu_seqlens), max_seqlen, scale)
