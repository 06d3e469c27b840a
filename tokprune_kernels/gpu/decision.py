"""Which tokens stay, sequence by sequence: kernels.

Two steps, so that nothing waits for the host and no atomics are needed: a program a sequence flags the rows that stay and
counts them; then a program a sequence adds up the counts before its own, and writes its rows' numbers behind them.
The decisions themselves are helpers that `prune_attention` uses too, on scores that it has just added up.
"""

from ctypes import c_float

import torch
import triton
import triton.language as tl

from ._bounds import sequence_bounds
from .launching import ROW_COUNTS, given, live_rows, on_device


@triton.jit
def always_kept(scores, offsets, start, mask, protected, PROTECTED: tl.constexpr, PROTECT_FIRST: tl.constexpr):
    """NaN scores, protected rows, and the first row if that is asked for."""
    keep = scores != scores
    if PROTECT_FIRST:
        keep = keep | (offsets == 0)
    if PROTECTED:
        keep = keep | (tl.load(protected + start + offsets, mask=mask, other=0) != 0)
    return keep & mask


@triton.jit
def flag_threshold(
    importance, start, length, threshold, protected, flags,
    PROTECTED: tl.constexpr, PROTECT_FIRST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Flag the rows of one sequence that reach the threshold or always stay; returns how many. None: the first highest one."""
    count = tl.full((), 0, tl.int32)
    highest = tl.full((), float("-inf"), tl.float32)
    best = tl.full((), 0, tl.int32)
    for first in range(0, length, BLOCK):
        offsets = first + tl.arange(0, BLOCK)
        mask = offsets < length
        scores = tl.load(importance + start + offsets, mask=mask, other=float("-inf"))
        keep = always_kept(scores, offsets, start, mask, protected, PROTECTED, PROTECT_FIRST)
        keep = keep | ((scores >= threshold) & mask)
        tl.store(flags + start + offsets, keep.to(tl.int8), mask=mask)
        count += tl.sum(keep.to(tl.int32), axis=0)
        here = tl.max(scores, axis=0)
        where = first + tl.min(tl.where(scores == here, tl.arange(0, BLOCK), BLOCK), axis=0)
        best = tl.where(here > highest, where, best)
        highest = tl.maximum(highest, here)
    if (count == 0) & (length > 0):
        tl.debug_barrier()  # the 0 that another thread has written there comes first
        tl.store(flags + start + best, tl.full((), 1, tl.int8))
        count += 1
    return count


@triton.jit
def flag_topk(
    importance, start, length, ratio_high, ratio_low, protected, flags,
    PROTECTED: tl.constexpr, PROTECT_FIRST: tl.constexpr, COUNT_FIRST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Flag the max(1, ceil(keep_ratio * n - 1e-9)) rows of one sequence that rank highest; returns how many.

    Without COUNT_FIRST the first row stays beside them, and the ratio is of the others.
    A row's rank is the number of candidates before it: those of higher score, and those of equal score in lower positions.
    Counting n^2 comparisons tile by tile beats sorting up to some thousands of tokens, and decides ties by itself.
    """
    # In float64, as the definition has it: in float32 ceil(0.3 * 10) would be 4. Arguments arrive as float32, hence the halves.
    keep_ratio = tl.full((), ratio_high, tl.float64) + tl.full((), ratio_low, tl.float64)
    beside = 0 if COUNT_FIRST else 1
    wanted = tl.maximum(tl.ceil(keep_ratio * (length - beside).to(tl.float64) - 1e-9).to(tl.int32) + beside, 1)
    fixed = tl.full((), 0, tl.int32)
    for first in range(0, length, BLOCK):
        offsets = first + tl.arange(0, BLOCK)
        mask = offsets < length
        scores = tl.load(importance + start + offsets, mask=mask, other=0.0)
        keep = always_kept(scores, offsets, start, mask, protected, PROTECTED, PROTECT_FIRST)
        fixed += tl.sum(keep.to(tl.int32), axis=0)
    free = tl.maximum(wanted - fixed, 0)
    count = tl.full((), 0, tl.int32)
    for first in range(0, length, BLOCK):
        offsets = first + tl.arange(0, BLOCK)
        mask = offsets < length
        scores = tl.load(importance + start + offsets, mask=mask, other=0.0)
        keep = always_kept(scores, offsets, start, mask, protected, PROTECTED, PROTECT_FIRST)
        rank = tl.zeros((BLOCK,), tl.int32)
        for other_first in range(0, length, BLOCK):
            other_offsets = other_first + tl.arange(0, BLOCK)
            other_mask = other_offsets < length
            others = tl.load(importance + start + other_offsets, mask=other_mask, other=0.0)
            apart = always_kept(others, other_offsets, start, other_mask, protected, PROTECTED, PROTECT_FIRST)
            before = (others[None, :] > scores[:, None]) | (
                (others[None, :] == scores[:, None]) & (other_offsets[None, :] < offsets[:, None])
            )
            before = before & (other_mask & (apart == 0))[None, :]
            rank += tl.sum(before.to(tl.int32), axis=1)
        keep = keep | (mask & (rank < free))
        tl.store(flags + start + offsets, keep.to(tl.int8), mask=mask)
        count += tl.sum(keep.to(tl.int32), axis=0)
    return count


@triton.jit
def flag_by_rule(
    importance, start, length, value, value_low, protected, flags,
    TOPK: tl.constexpr, PROTECTED: tl.constexpr, PROTECT_FIRST: tl.constexpr, COUNT_FIRST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Flag the rows of one sequence by one of the two rules; returns how many, 0 for an empty one."""
    if TOPK:
        count = flag_topk(
            importance, start, length, value, value_low, protected, flags, PROTECTED, PROTECT_FIRST, COUNT_FIRST, BLOCK
        )
    else:
        count = flag_threshold(importance, start, length, value, protected, flags, PROTECTED, PROTECT_FIRST, BLOCK)
    return count


@triton.jit
def counted_before(counts, sequence, COUNT_BLOCK: tl.constexpr):
    """The sum of the counts of the sequences before this one."""
    place = tl.full((), 0, tl.int32)
    for first in range(0, sequence, COUNT_BLOCK):
        others = first + tl.arange(0, COUNT_BLOCK)
        place += tl.sum(tl.load(counts + others, mask=others < sequence, other=0), axis=0)
    return place


@triton.jit(do_not_specialize=ROW_COUNTS)
def flag_rows(
    importance, flags, counts, cu_seqlens, protected, total, value, value_low,
    TOPK: tl.constexpr, PROTECTED: tl.constexpr, PROTECT_FIRST: tl.constexpr, COUNT_FIRST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (B): flags (T,) int8 and counts (B,) int32 by one rule; value: the threshold, or with value_low the keep ratio."""
    sequence = tl.program_id(0)
    start, length = sequence_bounds(cu_seqlens, sequence, total)
    count = flag_by_rule(
        importance, start, length, value, value_low, protected, flags, TOPK, PROTECTED, PROTECT_FIRST, COUNT_FIRST, BLOCK
    )
    tl.store(counts + sequence, count)


@triton.jit(do_not_specialize=ROW_COUNTS)
def place_rows(
    flags, counts, cu_seqlens, keep_idx, new_cu_seqlens, total,
    BLOCK: tl.constexpr, COUNT_BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (B): keep_idx, the flagged rows' numbers in ascending order, and new_cu_seqlens (B + 1,)."""
    sequence = tl.program_id(0)
    start, length = sequence_bounds(cu_seqlens, sequence, total)
    place = counted_before(counts, sequence, COUNT_BLOCK)
    if sequence == 0:
        tl.store(new_cu_seqlens, 0)
    tl.store(new_cu_seqlens + sequence + 1, place + tl.load(counts + sequence))
    for first in range(0, length, BLOCK):
        offsets = first + tl.arange(0, BLOCK)
        mask = offsets < length
        keep = tl.load(flags + start + offsets, mask=mask, other=0).to(tl.int32)
        index = place + tl.cumsum(keep, axis=0) - keep
        tl.store(keep_idx + index, start + offsets, mask=mask & (keep != 0))
        place += tl.sum(keep, axis=0)


# Rows that a program looks at at a time: long enough for its warps, short enough for texts of 25 tokens. Ranks compare a tile
# with a tile, so that one is smaller.
BLOCK, RANK_BLOCK, COUNT_BLOCK = 256, 64, 1024


def keep_threshold(importance, cu_seqlens, threshold, protected=None, protect_first=True, capacity=False):
    """As the op of that name."""
    flags, counts = flag(importance, cu_seqlens, threshold, None, protected, protect_first)
    return place(flags, counts, cu_seqlens, capacity)


def keep_topk(importance, cu_seqlens, keep_ratio, protected=None, protect_first=True, capacity=False, count_first=True):
    """As the op of that name."""
    flags, counts = flag(importance, cu_seqlens, None, keep_ratio, protected, protect_first, count_first)
    return place(flags, counts, cu_seqlens, capacity)


def flag(importance, cu_seqlens, threshold, keep_ratio, protected, protect_first, count_first=True):
    """flags (T,) int8 of the rows that stay, and counts (B,) int32, on the device."""
    total, sequences = importance.shape[0], cu_seqlens.shape[0] - 1
    flags = importance.new_empty(total, dtype=torch.int8)
    counts = cu_seqlens.new_empty(sequences)
    if not sequences:
        return flags, counts
    topk = threshold is None
    high, low = halves(keep_ratio) if topk else (threshold, 0.0)
    with on_device(importance):
        flag_rows[(sequences,)](
            importance, flags, counts, cu_seqlens, given(protected, flags).view(torch.int8),
            total, high, low, TOPK=topk, PROTECTED=protected is not None, PROTECT_FIRST=protect_first,
            COUNT_FIRST=count_first, BLOCK=RANK_BLOCK if topk else BLOCK,
        )  # fmt: skip
    return flags, counts


def place(flags, counts, cu_seqlens, capacity):
    """keep_idx and new_cu_seqlens; the exact form asks the device how many rows stay, the capacity form does not."""
    total, sequences = flags.shape[0], counts.shape[0]
    keep_idx = cu_seqlens.new_zeros(total) if capacity else cu_seqlens.new_empty(total)
    new_cu_seqlens = cu_seqlens.new_zeros(sequences + 1) if not sequences else cu_seqlens.new_empty(sequences + 1)
    if sequences:
        with on_device(flags):
            place_rows[(sequences,)](
                flags, counts, cu_seqlens, keep_idx, new_cu_seqlens, total, BLOCK=BLOCK, COUNT_BLOCK=COUNT_BLOCK
            )
    return keep_idx if capacity else keep_idx[: live_rows(new_cu_seqlens)], new_cu_seqlens


def halves(ratio: float) -> tuple[float, float]:
    """Two float32 numbers whose sum is the ratio to 48 bits: a float argument of a kernel has only 24."""
    high = c_float(ratio).value
    return high, ratio - high
