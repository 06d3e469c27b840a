"""Attention within each sequence of a packed batch, and the importance of its tokens: kernels and launchers.

Two forms, chosen on the device by each sequence's own length, so that no result depends on the other sequences:

- short ones (`configs.short_forms`: up to 64, and up to 128 tokens): a program holds a whole (sequence, head). Softmax is exact in
  one go and the columns of P are summed while they are in registers.
- longer: flash attention, which leaves what normalises each row, then a second pass over S^T = K Q^T that sums P's columns. One
  program then owns a block of keys and sees all queries. Rows are normalised by two numbers, their highest score and the sum: one,
  the log-sum-exp, would have the digits of a large score and none left for the sum.

Either way one program has all that a key receives in a head: `partials` (N_h, T) float32, which `summed_partials` adds up in a fixed
order. No atomics anywhere.
"""

import torch
import triton
import triton.language as tl

from ._bounds import sequence_bounds
from .configs import padded_head, short_forms, tile
from .launching import ROW_COUNTS, blocks, dot_precision, given, on_device

_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _rows_of(base, rows, row_stride, head, columns, HEAD_DIM: tl.constexpr, row_mask):
    """A (rows, BLOCK_D) tile of one head; zeros past the rows and the head's own columns."""
    pointers = base + rows[:, None].to(tl.int64) * row_stride + head * HEAD_DIM + columns[None, :]
    return tl.load(pointers, mask=row_mask[:, None] & (columns[None, :] < HEAD_DIM), other=0.0)


@triton.jit
def _highest_bias(key_bias, start, length, BLOCK: tl.constexpr):
    """The sequence's largest key bias: taken off, so that what all keys have in common costs no digits of a score."""
    highest = tl.full((), float("-inf"), tl.float32)
    for first in range(0, length, BLOCK):
        offsets = first + tl.arange(0, BLOCK)
        bias = tl.load(key_bias + start + offsets, mask=offsets < length, other=float("-inf"))
        highest = tl.maximum(highest, tl.max(bias, axis=0))
    return highest


@triton.jit
def _biased_scores(
    queries, some_keys, key_bias, start, keys, key_mask, highest_bias, scale, BIAS: tl.constexpr, PRECISION: tl.constexpr
):
    """Scores in powers of two, (rows, keys): scale q.k + bias less its maximum, -inf past the sequence."""
    scores = tl.dot(queries, tl.trans(some_keys), input_precision=PRECISION) * (scale * _LOG2E)
    if BIAS:
        bias = tl.load(key_bias + start + keys, mask=key_mask, other=0.0)
        scores += ((bias - highest_bias) * _LOG2E)[None, :]
    return tl.where(key_mask[None, :], scores, float("-inf"))


@triton.jit
def store_row_stats(row_stats, places, total, highest, sums, mask, HEADS: tl.constexpr):
    """row_stats (2, N_h, T) float32 of some rows: their highest score, and one over the sum of 2^(score - highest)."""
    tl.store(row_stats + places, highest, mask=mask)
    tl.store(row_stats + places + tl.cast(HEADS, tl.int64) * total, 1.0 / sums, mask=mask)


@triton.jit
def load_row_stats(row_stats, places, total, mask, HEADS: tl.constexpr):
    """What `store_row_stats` stored; rows past the mask give probabilities of 0."""
    highest = tl.load(row_stats + places, mask=mask, other=float("inf"))
    return highest, tl.load(row_stats + places + tl.cast(HEADS, tl.int64) * total, mask=mask, other=0.0)


@triton.jit
def probabilities_of(scores, highest, inverse_sums):
    """Of scores computed again, perhaps in another order: of large ones a rounding more than `highest` must not be an infinity."""
    powers = tl.exp2(scores - highest)
    return tl.where(powers > 1.0, inverse_sums, powers * inverse_sums)


@triton.jit(do_not_specialize=ROW_COUNTS)
def attend_short(
    q, k, v, out, partials, cu_seqlens, key_bias, row_weights, total,
    q_stride, k_stride, v_stride, scale,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    SHORTER: tl.constexpr, BIAS: tl.constexpr, WEIGHTS: tl.constexpr, IMPORTANCE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (B, N_h): sequences of more than SHORTER and at most BLOCK_N = BLOCK_M tokens; others are left alone."""
    sequence, head = tl.program_id(0), tl.program_id(1)
    start, length = sequence_bounds(cu_seqlens, sequence, total)
    if (length <= SHORTER) | (length > BLOCK_N):
        return
    rows, keys, columns = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    row_mask, key_mask = rows < length, keys < length
    queries = _rows_of(q, start + rows, q_stride, head, columns, HEAD_DIM, row_mask)
    all_keys = _rows_of(k, start + keys, k_stride, head, columns, HEAD_DIM, key_mask)
    values = _rows_of(v, start + keys, v_stride, head, columns, HEAD_DIM, key_mask)  # on their way while scores are computed
    highest_bias = 0.0
    if BIAS:
        highest_bias = _highest_bias(key_bias, start, length, BLOCK_N)
    scores = _biased_scores(queries, all_keys, key_bias, start, keys, key_mask, highest_bias, scale, BIAS, PRECISION)
    probabilities = tl.exp2(scores - tl.max(scores, axis=1)[:, None])
    probabilities = probabilities / tl.sum(probabilities, axis=1)[:, None]
    if IMPORTANCE:
        counted = row_mask.to(tl.float32)
        if WEIGHTS:
            counted = tl.load(row_weights + start + rows, mask=row_mask, other=0.0)
        received = tl.sum(probabilities * counted[:, None], axis=0)
        tl.store(partials + head.to(tl.int64) * total + start + keys, received, mask=key_mask)
    context = tl.dot(probabilities.to(values.dtype), values, input_precision=PRECISION)
    places = (start + rows)[:, None].to(tl.int64) * (HEADS * HEAD_DIM) + head * HEAD_DIM + columns[None, :]
    tl.store(out + places, context.to(out.dtype.element_ty), mask=row_mask[:, None] & (columns[None, :] < HEAD_DIM))


@triton.jit(do_not_specialize=ROW_COUNTS)
def attend_long(
    q, k, v, out, row_stats, cu_seqlens, key_bias, total,
    q_stride, k_stride, v_stride, scale,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    SHORT: tl.constexpr, BIAS: tl.constexpr, IMPORTANCE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (B, N_h, blocks of BLOCK_M query rows): flash attention of sequences of more than SHORT tokens.

    row_stats, written if IMPORTANCE: of scores in powers of two, bias (less its maximum) included.
    """
    sequence, head, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    start, length = sequence_bounds(cu_seqlens, sequence, total)
    if (length <= SHORT) | (block * BLOCK_M >= length):
        return
    rows, columns = block * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    row_mask = rows < length
    queries = _rows_of(q, start + rows, q_stride, head, columns, HEAD_DIM, row_mask)
    highest_bias = 0.0
    if BIAS:
        highest_bias = _highest_bias(key_bias, start, length, BLOCK_N)
    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    sums = tl.zeros((BLOCK_M,), tl.float32)
    context = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for first in range(0, length, BLOCK_N):
        keys = first + tl.arange(0, BLOCK_N)
        key_mask = keys < length
        some_keys = _rows_of(k, start + keys, k_stride, head, columns, HEAD_DIM, key_mask)
        scores = _biased_scores(queries, some_keys, key_bias, start, keys, key_mask, highest_bias, scale, BIAS, PRECISION)
        new_highest = tl.maximum(highest, tl.max(scores, axis=1))
        kept = tl.exp2(highest - new_highest)
        probabilities = tl.exp2(scores - new_highest[:, None])
        sums = sums * kept + tl.sum(probabilities, axis=1)
        values = _rows_of(v, start + keys, v_stride, head, columns, HEAD_DIM, key_mask)
        context = context * kept[:, None]
        context = tl.dot(probabilities.to(values.dtype), values, context, input_precision=PRECISION)
        highest = new_highest
    context = context / sums[:, None]
    places = (start + rows)[:, None].to(tl.int64) * (HEADS * HEAD_DIM) + head * HEAD_DIM + columns[None, :]
    tl.store(out + places, context.to(out.dtype.element_ty), mask=row_mask[:, None] & (columns[None, :] < HEAD_DIM))
    if IMPORTANCE:
        store_row_stats(row_stats, head.to(tl.int64) * total + start + rows, total, highest, sums, row_mask, HEADS)


@triton.jit(do_not_specialize=ROW_COUNTS)
def column_sums(
    q, k, row_stats, partials, cu_seqlens, key_bias, row_weights, total,
    q_stride, k_stride, scale,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    SHORT: tl.constexpr, BIAS: tl.constexpr, WEIGHTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (B, N_h, blocks of BLOCK_N keys): what the keys of sequences of more than SHORT tokens receive from all rows."""
    sequence, head, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    start, length = sequence_bounds(cu_seqlens, sequence, total)
    if (length <= SHORT) | (block * BLOCK_N >= length):
        return
    keys, columns = block * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    key_mask = keys < length
    own_keys = _rows_of(k, start + keys, k_stride, head, columns, HEAD_DIM, key_mask)
    if BIAS:
        highest_bias = _highest_bias(key_bias, start, length, BLOCK_M)
        own_bias = (tl.load(key_bias + start + keys, mask=key_mask, other=0.0) - highest_bias) * _LOG2E
    received = tl.zeros((BLOCK_N,), tl.float32)
    for first in range(0, length, BLOCK_M):
        rows = first + tl.arange(0, BLOCK_M)
        row_mask = rows < length
        queries = _rows_of(q, start + rows, q_stride, head, columns, HEAD_DIM, row_mask)
        scores = tl.dot(own_keys, tl.trans(queries), input_precision=PRECISION) * (scale * _LOG2E)
        if BIAS:
            scores += own_bias[:, None]
        highest, inverse_sums = load_row_stats(row_stats, head.to(tl.int64) * total + start + rows, total, row_mask, HEADS)
        probabilities = probabilities_of(scores, highest[None, :], inverse_sums[None, :])
        if WEIGHTS:
            weights = tl.load(row_weights + start + rows, mask=row_mask, other=0.0)
            probabilities = probabilities * weights[None, :]
        received += tl.sum(probabilities, axis=1)
    tl.store(partials + head.to(tl.int64) * total + start + keys, received, mask=key_mask)


@triton.jit
def summed_partials(partials, start, offsets, mask, total, HEADS: tl.constexpr):
    """What (N_h, T) partial sums add up to for the tokens at `offsets` from row `start` on, the heads in order."""
    received = tl.zeros(offsets.shape, tl.float32)
    for head in range(HEADS):
        received += tl.load(partials + tl.cast(head, tl.int64) * total + start + offsets, mask=mask, other=0.0)
    return received


@triton.jit(do_not_specialize=ROW_COUNTS)
def reduce_partials(
    partials, importance, cu_seqlens, denominators, total,
    HEADS: tl.constexpr, BLOCK: tl.constexpr, DENOMINATORS: tl.constexpr,
):
    """Grid (B, blocks of BLOCK tokens): importance s_i = 1/(N_h D) sum_h sum_q A_h[q, i]."""
    sequence, block = tl.program_id(0), tl.program_id(1)
    start, length = sequence_bounds(cu_seqlens, sequence, total)
    if block * BLOCK >= length:
        return
    offsets = block * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < length
    received = summed_partials(partials, start, offsets, mask, total, HEADS)
    denominator = length.to(tl.float32)
    if DENOMINATORS:
        denominator = tl.load(denominators + sequence)
    tl.store(importance + start + offsets, received / (HEADS * denominator), mask=mask)


REDUCE_BLOCK = 128


def attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators=None, key_bias=None, row_weights=None):
    """As the op of that name."""
    importance = q.new_empty(q.shape[0], dtype=torch.float32)
    context, partials = attend(q, k, v, cu_seqlens, max_seqlen, scale, key_bias, row_weights)
    sequences, heads = cu_seqlens.shape[0] - 1, q.shape[1]
    if partials is not None:
        with on_device(q):
            reduce_partials[(sequences, blocks(max_seqlen, REDUCE_BLOCK))](
                partials, importance, cu_seqlens, given(denominators, importance), q.shape[0], HEADS=heads,
                BLOCK=REDUCE_BLOCK, DENOMINATORS=denominators is not None,
            )  # fmt: skip
    return context, importance


def varlen_attention(q, k, v, cu_seqlens, max_seqlen, scale):
    """As the op of that name."""
    return attend(q, k, v, cu_seqlens, max_seqlen, scale, importance=False)[0]


def attend(q, k, v, cu_seqlens, max_seqlen, scale, key_bias=None, row_weights=None, importance=True):
    """context, and the partial sums of the importance (N_h, T): None where there is nothing to sum, or none is wanted.

    max_seqlen, known to the host, says which kernels are needed; which one a sequence goes through is its own length's matter.
    """
    (total, heads, head_dim), sequences = q.shape, cu_seqlens.shape[0] - 1
    context = q.new_empty(q.shape)
    if not (total and max_seqlen):
        return context, None
    q, k, v = map(head_rows, (q, k, v))
    partials = q.new_empty((heads, total), dtype=torch.float32) if importance else None
    bias, weights = given(key_bias, context), given(row_weights, context)
    strides = tuple(x.stride(0) for x in (q, k, v))
    common = {"HEADS": heads, "HEAD_DIM": head_dim, "BLOCK_D": padded_head(head_dim), "BIAS": key_bias is not None,
              "PRECISION": dot_precision(q.dtype)}  # fmt: skip
    with on_device(q):
        limit = 0
        for short in short_forms(q.dtype, head_dim):
            if max_seqlen > limit:
                attend_short[(sequences, heads)](
                    q, k, v, context, given(partials, context), cu_seqlens, bias, weights, total, *strides, scale,
                    SHORTER=limit, IMPORTANCE=importance, WEIGHTS=row_weights is not None, **common, **short.arguments,
                )  # fmt: skip
            limit = short.block_n
        if max_seqlen > limit:
            row_stats = q.new_empty((2, heads, total), dtype=torch.float32) if importance else context
            long = tile("attend_long", q.dtype, head_dim)
            attend_long[(sequences, heads, blocks(max_seqlen, long.block_m))](
                q, k, v, context, row_stats, cu_seqlens, bias, total, *strides, scale, SHORT=limit, IMPORTANCE=importance,
                **common, **long.arguments,
            )  # fmt: skip
            if importance:
                columns = tile("column_sums", q.dtype, head_dim)
                column_sums[(sequences, heads, blocks(max_seqlen, columns.block_n))](
                    q, k, row_stats, partials, cu_seqlens, bias, weights, total, *strides[:2], scale, SHORT=limit,
                    WEIGHTS=row_weights is not None, **common, **columns.arguments,
                )  # fmt: skip
    return context, partials


def head_rows(x):
    """x (T, N_h, d) as the kernels read it, with every row's heads contiguous: views of joined projections are, gradients may not be."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()
