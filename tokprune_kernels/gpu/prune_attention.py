"""Attention, importance, decision and gather as one step: kernel and launcher.

After attention one kernel adds up the importance of a sequence, decides and counts, a second one numbers the rows that stay,
a third one moves them into buffers of T rows. Only then the host asks how many there are, while the device works.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ._bounds import sequence_bounds
from .attention import attend, summed_partials
from .decision import BLOCK, COUNT_BLOCK, RANK_BLOCK, flag_by_rule, halves, place_rows
from .gather import gather_into
from .launching import ROW_COUNTS, given, live_rows, on_device


@triton.jit(do_not_specialize=ROW_COUNTS)
def score_and_flag(
    partials, importance, flags, counts, cu_seqlens, denominators, protected, total, value, value_low,
    HEADS: tl.constexpr, BLOCK: tl.constexpr, DENOMINATORS: tl.constexpr,
    TOPK: tl.constexpr, PROTECTED: tl.constexpr, PROTECT_FIRST: tl.constexpr, COUNT_FIRST: tl.constexpr,
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
        received = summed_partials(partials, start, offsets, mask, total, HEADS)
        tl.store(importance + start + offsets, received / (HEADS * denominator), mask=mask)
    tl.debug_barrier()  # what follows reads what other threads of the program wrote
    count = flag_by_rule(
        importance, start, length, value, value_low, protected, flags, TOPK, PROTECTED, PROTECT_FIRST, COUNT_FIRST, BLOCK
    )
    tl.store(counts + sequence, count)


@dataclass(frozen=True, slots=True)
class Decision:
    """keep_idx (T,), rows that stay, of which cu_seqlens[-1] count; flags (T,) int8 of them; importance (T,) float32."""

    keep_idx: torch.Tensor
    cu_seqlens: torch.Tensor
    flags: torch.Tensor
    importance: torch.Tensor


def prune_attention(
    q, k, v, residual, cu_seqlens, max_seqlen, scale, threshold=None, keep_ratio=None, denominators=None, protected=None,
    protect_first=True, count_first=True,
):  # fmt: skip
    """As the op of that name."""
    context, partials = attend(q, k, v, cu_seqlens, max_seqlen, scale)
    if partials is None:  # no token at all
        return context, residual.clone(), q.new_empty(0, dtype=torch.float32), cu_seqlens[:0].clone(), cu_seqlens.clone()
    rule = (threshold, keep_ratio, protected, protect_first, count_first)
    decided = decide(Scores(partials, denominators), cu_seqlens, *rule)
    kept_context, kept_residual = context.new_empty(context.shape), residual.new_empty(residual.shape)
    for out, x in ((kept_context, context), (kept_residual, residual)):
        gather_into(out, x, decided.keep_idx, decided.cu_seqlens[-1:])
    kept = live_rows(decided.cu_seqlens)
    return kept_context[:kept], kept_residual[:kept], decided.importance, decided.keep_idx[:kept], decided.cu_seqlens


@dataclass(frozen=True, slots=True)
class Scores:
    """What is left to add up to the importance: partials (N_h, T), and denominators (B,) or None."""

    partials: torch.Tensor
    denominators: torch.Tensor | None


def decide(scores, cu_seqlens, threshold, keep_ratio, protected, protect_first, count_first):
    """Who stays by exactly one of the two rules: a Decision, without a host sync."""
    (heads, total), sequences = scores.partials.shape, cu_seqlens.shape[0] - 1
    importance, flags = (scores.partials.new_empty(total, dtype=dtype) for dtype in (torch.float32, torch.int8))
    keep_idx, counts = cu_seqlens.new_empty(total), cu_seqlens.new_empty(sequences)
    new_cu_seqlens = cu_seqlens.new_empty(sequences + 1)
    topk = threshold is None
    value, value_low = halves(keep_ratio) if topk else (threshold, 0.0)
    with on_device(flags):
        score_and_flag[(sequences,)](
            scores.partials, importance, flags, counts, cu_seqlens, given(scores.denominators, importance),
            given(protected, flags).view(torch.int8), total, value, value_low, HEADS=heads,
            BLOCK=RANK_BLOCK if topk else BLOCK, DENOMINATORS=scores.denominators is not None, TOPK=topk,
            PROTECTED=protected is not None, PROTECT_FIRST=protect_first, COUNT_FIRST=count_first,
        )  # fmt: skip
        place_rows[(sequences,)](
            flags, counts, cu_seqlens, keep_idx, new_cu_seqlens, total, BLOCK=BLOCK, COUNT_BLOCK=COUNT_BLOCK
        )
    return Decision(keep_idx, new_cu_seqlens, flags, importance)
