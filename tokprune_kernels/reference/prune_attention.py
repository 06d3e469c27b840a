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
    count_first=True,
):
    """Context and residual rows of the tokens that stay, importance of all, keep_idx, new_cu_seqlens."""
    context, importance = attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators)
    if threshold is None:
        decided = keep_topk(importance, cu_seqlens, keep_ratio, protected, protect_first, count_first=count_first)
    else:
        decided = keep_threshold(importance, cu_seqlens, threshold, protected, protect_first)
    keep_idx, new_cu_seqlens = decided
    context, residual = compact_many([context, residual], keep_idx, keep_idx.shape[0])
    return context, residual, importance, keep_idx, new_cu_seqlens
