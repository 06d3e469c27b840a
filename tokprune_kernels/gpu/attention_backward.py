"""Gradients of attention and importance: kernels and launchers.

The forward pass saves nothing; two passes over (sequence, head) recompute the probabilities tile by tile:

- a program of query rows goes over the keys twice: first for what normalises each row and its `delta` = sum_k P dP, then for dQ;
- a program of keys goes over the queries once, for dK, dV and the column sums of dB, the gradient of the key bias.

With r = row_weights and g_k = grad_importance_k / (N_h D):  dP[q, k] = dO_q . v_k + r_q g_k,  dB = P (dP - delta),
dQ = scale dB K,  dK = scale dB^T Q,  dV = P^T dO,  d row_weights_q = sum_h sum_k P g_k. No atomics: what has a value for each head is
written to (N_h, T) and added up in order.
"""

import torch
import triton
import triton.language as tl

from ._bounds import sequence_bounds
from .attention import (
    _LOG2E,
    _biased_scores,
    _highest_bias,
    _rows_of,
    head_rows,
    load_row_stats,
    probabilities_of,
    store_row_stats,
    summed_partials,
)
from .configs import padded_head, tile
from .launching import ROW_COUNTS, blocks, dot_precision, given, on_device


@triton.jit
def _score_gradient(grad_importance, denominators, sequence, start, keys, key_mask, length, HEADS: tl.constexpr,
                    DENOMINATORS: tl.constexpr):  # fmt: skip
    """g of some keys: what one unit of attention adds to the loss through their importance."""
    denominator = length.to(tl.float32)
    if DENOMINATORS:
        denominator = tl.load(denominators + sequence)
    return tl.load(grad_importance + start + keys, mask=key_mask, other=0.0) / (HEADS * denominator)


@triton.jit(do_not_specialize=ROW_COUNTS)
def grad_queries(
    grad_context, grad_importance, q, k, v, grad_q, row_stats, delta, row_sums, cu_seqlens, denominators, key_bias, row_weights,
    total, grad_stride, q_stride, k_stride, v_stride, scale,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BIAS: tl.constexpr, WEIGHTS: tl.constexpr, DENOMINATORS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (B, N_h, blocks of BLOCK_M rows): grad_q (T, N_h, d); row_stats; delta and row_sums (of P g), each (N_h, T) float32."""
    sequence, head, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    start, length = sequence_bounds(cu_seqlens, sequence, total)
    if block * BLOCK_M >= length:
        return
    rows, columns = block * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    row_mask = rows < length
    queries = _rows_of(q, start + rows, q_stride, head, columns, HEAD_DIM, row_mask)
    grad_rows = _rows_of(grad_context, start + rows, grad_stride, head, columns, HEAD_DIM, row_mask)
    weights = row_mask.to(tl.float32)
    if WEIGHTS:
        weights = tl.load(row_weights + start + rows, mask=row_mask, other=0.0)
    highest_bias = 0.0
    if BIAS:
        highest_bias = _highest_bias(key_bias, start, length, BLOCK_N)
    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    sums = tl.zeros((BLOCK_M,), tl.float32)
    context_part, score_part = tl.zeros((BLOCK_M,), tl.float32), tl.zeros((BLOCK_M,), tl.float32)
    for first in range(0, length, BLOCK_N):
        keys = first + tl.arange(0, BLOCK_N)
        key_mask = keys < length
        some_keys = _rows_of(k, start + keys, k_stride, head, columns, HEAD_DIM, key_mask)
        scores = _biased_scores(queries, some_keys, key_bias, start, keys, key_mask, highest_bias, scale, BIAS, PRECISION)
        new_highest = tl.maximum(highest, tl.max(scores, axis=1))
        kept = tl.exp2(highest - new_highest)
        parts = tl.exp2(scores - new_highest[:, None])
        values = _rows_of(v, start + keys, v_stride, head, columns, HEAD_DIM, key_mask)
        from_context = tl.dot(grad_rows, tl.trans(values), input_precision=PRECISION)
        gradient = _score_gradient(grad_importance, denominators, sequence, start, keys, key_mask, length, HEADS, DENOMINATORS)
        sums = sums * kept + tl.sum(parts, axis=1)
        context_part = context_part * kept + tl.sum(parts * from_context, axis=1)
        score_part = score_part * kept + tl.sum(parts * gradient[None, :], axis=1)
        highest = new_highest
    received = score_part / sums
    own_delta = context_part / sums + weights * received
    places = head.to(tl.int64) * total + start + rows
    store_row_stats(row_stats, places, total, highest, sums, row_mask, HEADS)
    tl.store(delta + places, own_delta, mask=row_mask)
    tl.store(row_sums + places, received, mask=row_mask)
    total_gradient = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for first in range(0, length, BLOCK_N):
        keys = first + tl.arange(0, BLOCK_N)
        key_mask = keys < length
        some_keys = _rows_of(k, start + keys, k_stride, head, columns, HEAD_DIM, key_mask)
        scores = _biased_scores(queries, some_keys, key_bias, start, keys, key_mask, highest_bias, scale, BIAS, PRECISION)
        probabilities = probabilities_of(scores, highest[:, None], (1.0 / sums)[:, None])
        values = _rows_of(v, start + keys, v_stride, head, columns, HEAD_DIM, key_mask)
        from_context = tl.dot(grad_rows, tl.trans(values), input_precision=PRECISION)
        gradient = _score_gradient(grad_importance, denominators, sequence, start, keys, key_mask, length, HEADS, DENOMINATORS)
        grad_scores = probabilities * (from_context + weights[:, None] * gradient[None, :] - own_delta[:, None])
        total_gradient = tl.dot(grad_scores.to(some_keys.dtype), some_keys, total_gradient, input_precision=PRECISION)
    places = (start + rows)[:, None].to(tl.int64) * (HEADS * HEAD_DIM) + head * HEAD_DIM + columns[None, :]
    inside = row_mask[:, None] & (columns[None, :] < HEAD_DIM)
    tl.store(grad_q + places, (total_gradient * scale).to(grad_q.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=ROW_COUNTS)
def grad_keys(
    grad_context, grad_importance, q, k, v, grad_k, grad_v, row_stats, delta, bias_sums, cu_seqlens, denominators, key_bias,
    row_weights, total, grad_stride, q_stride, k_stride, v_stride, scale,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BIAS: tl.constexpr, WEIGHTS: tl.constexpr, DENOMINATORS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (B, N_h, blocks of BLOCK_N keys): grad_k and grad_v (T, N_h, d), and bias_sums (N_h, T) float32."""
    sequence, head, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    start, length = sequence_bounds(cu_seqlens, sequence, total)
    if block * BLOCK_N >= length:
        return
    keys, columns = block * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    key_mask = keys < length
    own_keys = _rows_of(k, start + keys, k_stride, head, columns, HEAD_DIM, key_mask)
    own_values = _rows_of(v, start + keys, v_stride, head, columns, HEAD_DIM, key_mask)
    gradient = _score_gradient(grad_importance, denominators, sequence, start, keys, key_mask, length, HEADS, DENOMINATORS)
    own_bias = tl.zeros((BLOCK_N,), tl.float32)
    if BIAS:
        highest_bias = _highest_bias(key_bias, start, length, BLOCK_M)
        own_bias = (tl.load(key_bias + start + keys, mask=key_mask, other=0.0) - highest_bias) * _LOG2E
    total_k, total_v = tl.zeros((BLOCK_N, BLOCK_D), tl.float32), tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    total_bias = tl.zeros((BLOCK_N,), tl.float32)
    for first in range(0, length, BLOCK_M):
        rows = first + tl.arange(0, BLOCK_M)
        row_mask = rows < length
        places = head.to(tl.int64) * total + start + rows
        highest, inverse_sums = load_row_stats(row_stats, places, total, row_mask, HEADS)
        own_delta = tl.load(delta + places, mask=row_mask, other=0.0)
        weights = row_mask.to(tl.float32)
        if WEIGHTS:
            weights = tl.load(row_weights + start + rows, mask=row_mask, other=0.0)
        queries = _rows_of(q, start + rows, q_stride, head, columns, HEAD_DIM, row_mask)
        scores = tl.dot(own_keys, tl.trans(queries), input_precision=PRECISION) * (scale * _LOG2E)
        scores = tl.where(key_mask[:, None], scores + own_bias[:, None], float("-inf"))
        probabilities = probabilities_of(scores, highest[None, :], inverse_sums[None, :])
        grad_rows = _rows_of(grad_context, start + rows, grad_stride, head, columns, HEAD_DIM, row_mask)
        total_v = tl.dot(probabilities.to(grad_rows.dtype), grad_rows, total_v, input_precision=PRECISION)
        from_context = tl.dot(own_values, tl.trans(grad_rows), input_precision=PRECISION)
        grad_scores = probabilities * (from_context + gradient[:, None] * weights[None, :] - own_delta[None, :])
        total_k = tl.dot(grad_scores.to(queries.dtype), queries, total_k, input_precision=PRECISION)
        total_bias += tl.sum(grad_scores, axis=1)
    places = (start + keys)[:, None].to(tl.int64) * (HEADS * HEAD_DIM) + head * HEAD_DIM + columns[None, :]
    inside = key_mask[:, None] & (columns[None, :] < HEAD_DIM)
    tl.store(grad_k + places, (total_k * scale).to(grad_k.dtype.element_ty), mask=inside)
    tl.store(grad_v + places, total_v.to(grad_v.dtype.element_ty), mask=inside)
    tl.store(bias_sums + head.to(tl.int64) * total + start + keys, total_bias, mask=key_mask)


@triton.jit(do_not_specialize=ROW_COUNTS)
def sum_over_heads(parts, out, total, HEADS: tl.constexpr, BLOCK: tl.constexpr):
    """Grid (blocks of BLOCK): (N_h, T) -> (T,), heads in order."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < total
    tl.store(out + offsets, summed_partials(parts, 0, offsets, mask, total, HEADS), mask=mask)


SUM_BLOCK = 256


def attn_importance_backward(
    grad_context, grad_importance, q, k, v, cu_seqlens, max_seqlen, scale, denominators=None, key_bias=None, row_weights=None
):
    """As the op of that name."""
    (total, heads, head_dim), sequences = q.shape, cu_seqlens.shape[0] - 1
    grad_q, grad_k, grad_v = (q.new_empty(q.shape) for _ in range(3))
    grad_bias, grad_weights = (q.new_empty(total, dtype=torch.float32) for _ in range(2))
    if not (total and max_seqlen):
        return grad_q, grad_k, grad_v, grad_bias, grad_weights
    grad_context, q, k, v = map(head_rows, (grad_context, q, k, v))
    grad_importance = grad_importance.contiguous()
    delta, row_sums, bias_sums = q.new_empty((3, heads, total), dtype=torch.float32)
    row_stats = q.new_empty((2, heads, total), dtype=torch.float32)
    optional = (given(denominators, delta), given(key_bias, delta), given(row_weights, delta))
    strides = tuple(x.stride(0) for x in (grad_context, q, k, v))
    common = {"HEADS": heads, "HEAD_DIM": head_dim, "BLOCK_D": padded_head(head_dim), "BIAS": key_bias is not None,
              "WEIGHTS": row_weights is not None, "DENOMINATORS": denominators is not None,
              "PRECISION": dot_precision(q.dtype)}  # fmt: skip
    inputs = (grad_context, grad_importance, q, k, v)
    with on_device(q):
        rows = tile("grad_queries", q.dtype, head_dim)
        grad_queries[(sequences, heads, blocks(max_seqlen, rows.block_m))](
            *inputs, grad_q, row_stats, delta, row_sums, cu_seqlens, *optional, total, *strides, scale, **common, **rows.arguments
        )
        columns = tile("grad_keys", q.dtype, head_dim)
        grad_keys[(sequences, heads, blocks(max_seqlen, columns.block_n))](
            *inputs, grad_k, grad_v, row_stats, delta, bias_sums, cu_seqlens, *optional, total, *strides, scale, **common,
            **columns.arguments,
        )  # fmt: skip
        for parts, out in ((bias_sums, grad_bias), (row_sums, grad_weights)):
            sum_over_heads[(blocks(total, SUM_BLOCK),)](parts, out, total, HEADS=heads, BLOCK=SUM_BLOCK)
    return grad_q, grad_k, grad_v, grad_bias, grad_weights
