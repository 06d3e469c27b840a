"""Residual addition and LayerNorm: kernel and launcher."""

import triton
import triton.language as tl

from .launching import ROW_COUNTS, given, on_device, power_of_two


@triton.jit(do_not_specialize=ROW_COUNTS)
def add_layer_norm_rows(
    x, residual, weight, bias, out, rows, width, x_stride, residual_stride, eps, count, residual_index,
    COUNTED: tl.constexpr, INDEXED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (rows): LayerNorm(x + residual) * weight + bias, a row a program, sums in float32.

    count: if COUNTED, points to the number of rows, on the device.   residual_index: if INDEXED, the row of `residual` that
    belongs to each row of x, so that tokens that left need not be taken out of it first.
    """
    row = tl.program_id(0)
    if COUNTED:
        rows = tl.minimum(rows, tl.load(count))
    if row >= rows:
        return
    columns = tl.arange(0, BLOCK)
    mask = columns < width
    own = row
    if INDEXED:
        own = tl.load(residual_index + row)
    total = tl.load(x + row.to(tl.int64) * x_stride + columns, mask=mask, other=0.0).to(tl.float32)
    total += tl.load(residual + own.to(tl.int64) * residual_stride + columns, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(total, axis=0) / width
    centred = tl.where(mask, total - mean, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / width + eps)
    scale = tl.load(weight + columns, mask=mask, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=mask, other=0.0).to(tl.float32)
    normed = centred * inverse * scale + shift
    tl.store(out + row.to(tl.int64) * width + columns, normed.to(out.dtype.element_ty), mask=mask)


def add_layer_norm(x, residual, weight, bias, eps):
    """As the op of that name."""
    out = x.new_empty(x.shape)
    add_layer_norm_into(out, x, residual, weight, bias, eps)
    return out


def add_layer_norm_into(out, x, residual, weight, bias, eps, count=None, residual_index=None):
    """Write the rows of x, or the first count[0] of them, to `out` (contiguous); residual_index: see the kernel."""
    rows, width = x.shape
    if not rows:
        return
    block = power_of_two(width)
    with on_device(x):
        add_layer_norm_rows[(rows,)](
            x, residual, weight, bias, out, rows, width, x.stride(0), residual.stride(0), eps,
            given(count, out), given(residual_index, out), COUNTED=count is not None, INDEXED=residual_index is not None,
            BLOCK=block, num_warps=min(16, max(1, block // 256)),
        )  # fmt: skip
