"""Linear layers whose number of rows only the device knows: kernel and launcher.

A fixed number of programs share out the tiles of a result whose height they read from memory, so that a whole pruned forward
pass can be queued, or captured in a CUDA graph, before anyone knows how many tokens will be left. The rows of the input come
through an index, so that pruning moves no rows for it.
"""

from functools import cache

import torch
import triton
import triton.language as tl

from .configs import linear_tile
from .launching import ROW_COUNTS, blocks, dot_precision, given, on_device

# Codes of the ops' activations (reference.linear.ACTIVATIONS).
_NONE, _GELU, _GELU_TANH = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def _gelu_of_16_bits(x):
    """x Phi(x) to 6e-5, for results of 16 bits: (Phi(x) - 1/2) / x as a polynomial in x^2, minimax
    on |x| <= 4.5, 0 and x beyond. `tl.erf`, two polynomials and an exponential, took half as long as the product itself.
    """
    square = x * x
    slope = -1.4003281e-12 * square + 1.69758166e-10
    slope = slope * square - 9.19501097e-09
    slope = slope * square + 2.95921723e-07
    slope = slope * square - 6.36574441e-06
    slope = slope * square + 9.7876029e-05
    slope = slope * square - 0.00112270587
    slope = slope * square + 0.00983327813
    slope = slope * square - 0.0663372204
    slope = slope * square + 0.398883909
    return tl.where(x < -4.5, x * 0.0, tl.where(x > 4.5, x, x * (x * slope + 0.5)))


@triton.jit
def _activate(x, ACTIVATION: tl.constexpr, NARROW: tl.constexpr):
    if ACTIVATION == _GELU:
        if NARROW:
            x = _gelu_of_16_bits(x)
        else:
            x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif ACTIVATION == _GELU_TANH:
        inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)
        x = x / (1.0 + tl.exp(-2.0 * inner))  # 0.5 x (1 + tanh(inner)), and no overflow that matters
    elif ACTIVATION != _NONE:
        x = tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    return x


@triton.jit(do_not_specialize=ROW_COUNTS)
def linear_rows(
    x, weight, bias, out, index, count, rows, x_rows, columns, inner, x_stride,
    ACTIVATION: tl.constexpr, COUNTED: tl.constexpr, INDEXED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid of any size: out[i] = activation(x[index[i]] W^T + bias) for i < count[0], tile by tile.

    x (x_rows, inner); weight (columns, inner) as torch.nn.Linear has it; bias (columns,); out (rows, columns), whose rows past the
    count are left alone. Tiles of GROUP row blocks at a time share the weights that are in the second-level cache.
    """
    if COUNTED:
        rows = tl.minimum(rows, tl.load(count))
    row_blocks, column_blocks = tl.cdiv(rows, BLOCK_M), tl.cdiv(columns, BLOCK_N)
    for number in range(tl.program_id(0), row_blocks * column_blocks, tl.num_programs(0)):
        group = number // (GROUP * column_blocks)
        in_group = tl.minimum(row_blocks - group * GROUP, GROUP)
        row_block = group * GROUP + (number % (GROUP * column_blocks)) % in_group
        column_block = (number % (GROUP * column_blocks)) // in_group
        own_rows = row_block * BLOCK_M + tl.arange(0, BLOCK_M)
        own_columns = column_block * BLOCK_N + tl.arange(0, BLOCK_N)
        row_mask, column_mask = own_rows < rows, own_columns < columns
        sources, inside = own_rows, row_mask
        if INDEXED:
            sources = tl.load(index + own_rows, mask=row_mask, other=-1)
            inside = (sources >= 0) & (sources < x_rows)
        steps = tl.arange(0, BLOCK_K)
        x_tile = x + sources[:, None].to(tl.int64) * x_stride + steps[None, :]
        weight_tile = weight + own_columns[None, :].to(tl.int64) * inner + steps[:, None]
        sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for first in range(0, inner, BLOCK_K):
            inside_k = first + steps < inner
            a = tl.load(x_tile + first, mask=inside[:, None] & inside_k[None, :], other=0.0)
            b = tl.load(weight_tile + first, mask=inside_k[:, None] & column_mask[None, :], other=0.0)
            sums = tl.dot(a, b, sums, input_precision=PRECISION)
        sums += tl.load(bias + own_columns, mask=column_mask, other=0.0).to(tl.float32)[None, :]
        sums = _activate(sums, ACTIVATION, out.dtype.element_ty != tl.float32)
        places = own_rows[:, None].to(tl.int64) * columns + own_columns[None, :]
        tl.store(out + places, sums.to(out.dtype.element_ty), mask=row_mask[:, None] & column_mask[None, :])


def linear_into(out, x, weight, bias, activation=0, count=None, index=None):
    """Write activation(x[index] W^T + bias) to the rows of `out`, or to the first count[0] of them.

    Args:
        out: (T, N) contiguous.   x: (T', K), columns contiguous.   weight: (N, K) contiguous.   bias: (N,).
        activation: code of the ops.
        count: (1,) int32 on the device, or None: all rows.   index: (T,) int32 rows of x, or None: row for row.
    """
    rows, columns = out.shape
    if not rows:
        return
    here = processors(x.device)
    shape = linear_tile(x.dtype, rows, columns, here)
    tiles = blocks(rows, shape.block_m) * blocks(columns, shape.block_n)
    programs = min(tiles, shape.programs * here)
    with on_device(x):
        linear_rows[(programs,)](
            x, weight, bias, out, given(index, out), given(count, out), rows, x.shape[0], columns, x.shape[1], x.stride(0),
            ACTIVATION=activation, COUNTED=count is not None, INDEXED=index is not None,
            PRECISION=dot_precision(x.dtype), **shape.arguments,
        )  # fmt: skip


@cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
