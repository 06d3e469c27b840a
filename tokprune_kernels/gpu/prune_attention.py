"""Attention, importance, decision and gather as one step: kernel and launcher.

After attention one kernel adds up the importance of a sequence, decides and counts, a second one numbers the rows that stay,
a third one moves them into buffers of T rows. Only then the host asks how many there are, while the device works.
"""

import torch
import triton
import triton.language as tl

from ._bounds import sequence_bounds
from .attention import attend, parts_of, summed_partials
from .decision import BLOCK, COUNT_BLOCK, RANK_BLOCK, flag_threshold, flag_topk, halves, place_rows
from .gather import gather_into
from .launching import given, live_rows, on_device


@triton.jit
def score_and_flag(
    partials, importance, flags, counts, cu_seqlens, denominators, protected, total, value, value_low,
    HEADS: tl.constexpr, SHORT: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK: tl.constexpr, DENOMINATORS: tl.constexpr,
    TOPK: tl.constexpr, PROTECTED: tl.constexpr, PROTECT_FIRST: tl.constexpr,
):  # fmt: skip
    """Grid (B): importance (T,) float32 out of its partial sums, then `decision.flag_rows` of it in the same program."""
    sequence = tl.program_id(0)
    start, length = sequence_bounds(cu_seqlens, sequence, total)
    denominator = length.to(tl.float32)
    if DENOMINATORS:
        denominator = tl.load(denominators + sequence)
    for first in range(0, length, BLOCK):
        offsets = first + tl.arange(0, BLOCK)
        mask = offsets < length
        received = summed_partials(partials, start, offsets, mask, length, total, HEADS, SHORT, BLOCK_M)
        tl.store(importance + start + offsets, received / (HEADS * denominator), mask=mask)
    tl.debug_barrier()  # what follows reads what other threads of the program wrote
    if TOPK:
        count = flag_topk(importance, start, length, value, value_low, protected, flags, PROTECTED, PROTECT_FIRST, BLOCK)
        count = tl.where(length > 0, count, 0)
    else:
        count = flag_threshold(importance, start, length, value, protected, flags, PROTECTED, PROTECT_FIRST, BLOCK)
    tl.store(counts + sequence, count)


def prune_attention(
    q, k, v, residual, cu_seqlens, max_seqlen, scale, threshold=None, keep_ratio=None, denominators=None, protected=None,
    protect_first=True,
):  # fmt: skip
    """As the op of that name."""
    context, importance, keep_idx, new_cu_seqlens = attend_and_decide(
        q, k, v, cu_seqlens, max_seqlen, scale, threshold, keep_ratio, denominators, protected, protect_first
    )
    kept_context, kept_residual = context.new_empty(context.shape), residual.new_empty(residual.shape)
    count = new_cu_seqlens[-1:]
    for out, x in ((kept_context, context), (kept_residual, residual)):
        gather_into(out, x, keep_idx, x.shape[0], count)
    kept = live_rows(new_cu_seqlens)
    return kept_context[:kept], kept_residual[:kept], importance, keep_idx[:kept], new_cu_seqlens


def attend_and_decide(
    q, k, v, cu_seqlens, max_seqlen, scale, threshold=None, keep_ratio=None, denominators=None, protected=None,
    protect_first=True,
):  # fmt: skip
    """context (T, N_h, d) of all rows, importance (T,), keep_idx (T,) with zeros past the count, new_cu_seqlens: no host sync."""
    total, sequences = q.shape[0], cu_seqlens.shape[0] - 1
    context, partials = attend(q, k, v, cu_seqlens, max_seqlen, scale)
    importance = q.new_empty(total, dtype=torch.float32)
    keep_idx, new_cu_seqlens = cu_seqlens.new_zeros(total), cu_seqlens.new_zeros(sequences + 1)
    if partials is None:
        return context, importance, keep_idx, new_cu_seqlens
    flags, counts = q.new_empty(total, dtype=torch.int8), cu_seqlens.new_empty(sequences)
    topk = threshold is None
    value, value_low = halves(keep_ratio) if topk else (threshold, 0.0)
    with on_device(q):
        score_and_flag[(sequences,)](
            partials, importance, flags, counts, cu_seqlens, given(denominators, importance),
            given(protected, flags).view(torch.int8), total, value, value_low, HEADS=q.shape[1],
            BLOCK=RANK_BLOCK if topk else BLOCK, **parts_of(q),
            DENOMINATORS=denominators is not None, TOPK=topk, PROTECTED=protected is not None, PROTECT_FIRST=protect_first,
        )  # fmt: skip
        place_rows[(sequences,)](
            flags, counts, cu_seqlens, keep_idx, new_cu_seqlens, total, BLOCK=BLOCK, COUNT_BLOCK=COUNT_BLOCK
        )
    return context, importance, keep_idx, new_cu_seqlens
