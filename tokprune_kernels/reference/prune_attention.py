"""Attention, importance, decision and gather as one step."""

from .attention import attn_importance
from .decision import keep_threshold, keep_topk
from .gather import compact_many


def prune_attention(
    q,
    k,
    v,
    residual,
    cu_seqlens,
    max_seqlen,
    scale,
    threshold=None,
    keep_ratio=None,
    denominators=None,
    protected=None,
    protect_first=True,
):
    """Context and residual rows of the tokens that stay, importance of all, keep_idx, new_cu_seqlens."""
    context, importance = attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators)
    keep, value = (keep_topk, keep_ratio) if threshold is None else (keep_threshold, threshold)
    keep_idx, new_cu_seqlens = keep(importance, cu_seqlens, value, protected, protect_first)
    context, residual = compact_many([context, residual], keep_idx, keep_idx.shape[0])
    return context, residual, importance, keep_idx, new_cu_seqlens
