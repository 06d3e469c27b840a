"""Attention, importance, decision and gather as one step."""

import torch
from torch import Tensor

from . import checks
from .arguments import dense, head_rows, traced

_prune_attention = torch.ops.tokprune.prune_attention.default


def prune_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    residual: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    scale: float,
    threshold: float | None = None,
    keep_ratio: float | None = None,
    denominators: Tensor | None = None,
    protected: Tensor | None = None,
    protect_first: bool = True,
    count_first: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`attn_importance`, then `keep_threshold` or `keep_topk`, then context and residual rows of the tokens that stay.

    Args:
        q, k, v, cu_seqlens, max_seqlen, scale, denominators: as in `attn_importance`.
        residual: (T, H) floating, gathered along with the context.
        threshold, keep_ratio: exactly one of them, as in `keep_threshold` and `keep_topk`.
        protected, protect_first: as in `keep_threshold`.   count_first: as in `keep_topk`; True with a threshold.

    Returns:
        context (T', N_h, d), residual (T', H), importance (T,) float32 of all tokens, keep_idx (T',) int32 ascending and
        new_cu_seqlens (B + 1,) int32. Differentiable in the first three; the decision is a constant.

    Raises:
        TypeError: wrong type or dtype.   ValueError: wrong shape, device or value, or not exactly one rule.
    """
    if not traced():
        rule = (threshold, keep_ratio, denominators, protected, protect_first, count_first)
        checks.prune_attention(q, k, v, residual, cu_seqlens, max_seqlen, scale, *rule)
    q, k, v = head_rows(q, k, v)
    return _prune_attention(
        q,
        k,
        v,
        dense(residual),
        dense(cu_seqlens),
        max_seqlen,
        scale,
        threshold,
        keep_ratio,
        dense(denominators),
        dense(protected),
        protect_first,
        count_first,
    )
