"""Moving token rows: compaction, padded <-> packed, exit states: kernels.

A program moves BLOCK columns of ROWS rows. Rows are moved as they are, so tensors come viewed as integers of their size. An index that
is out of range moves nothing, whatever the caller gave: kernels never touch memory that is not theirs.
"""

import torch
import triton
import triton.language as tl

from .decision import COUNT_BLOCK, counted_before
from .launching import ROW_COUNTS, blocks, given, live_rows, on_device, power_of_two


@triton.jit(do_not_specialize=ROW_COUNTS)
def gather_rows(
    x, index, out, out_rows, x_rows, width, x_stride, count, COUNTED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """Grid (blocks of ROWS, blocks of BLOCK): out[i] = x[index[i]]; zeros where index[i] is no row of x.

    count: if COUNTED, points to the number of rows to move, on the device; the rows of `out` past it are left alone.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    if COUNTED:
        out_rows = tl.minimum(out_rows, tl.load(count))
    row_mask = rows < out_rows
    source = tl.load(index + rows, mask=row_mask, other=-1)
    inside = (source >= 0) & (source < x_rows)
    column_mask = columns[None, :] < width
    values = tl.load(
        x + source[:, None].to(tl.int64) * x_stride + columns[None, :], mask=inside[:, None] & column_mask, other=0
    )
    tl.store(out + rows[:, None].to(tl.int64) * width + columns[None, :], values, mask=row_mask[:, None] & column_mask)


@triton.jit(do_not_specialize=ROW_COUNTS)
def scatter_rows(
    x, index, out, flags, rows_of_x, out_rows, width, count, COUNTED: tl.constexpr, FLAGGED: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of ROWS, blocks of BLOCK): out[index[i]] = x[i]; the other rows of `out` are left alone.

    count: as in `gather_rows`.   flags: if FLAGGED, (T,) int8, and only the rows without one are moved.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    if COUNTED:
        rows_of_x = tl.minimum(rows_of_x, tl.load(count))
    row_mask = rows < rows_of_x
    if FLAGGED:
        row_mask = row_mask & (tl.load(flags + rows, mask=row_mask, other=1) == 0)
    target = tl.load(index + rows, mask=row_mask, other=-1)
    mask = ((target >= 0) & (target < out_rows))[:, None] & (columns[None, :] < width)
    values = tl.load(x + rows[:, None].to(tl.int64) * width + columns[None, :], mask=mask, other=0)
    tl.store(out + target[:, None].to(tl.int64) * width + columns[None, :], values, mask=mask)


@triton.jit(do_not_specialize=ROW_COUNTS)
def store_leavers(
    x, token_idx, keep_idx, out, rows_of_x, kept, out_rows, width, SEARCH_STEPS: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of ROWS, blocks of BLOCK): out[token_idx[i]] = x[i] for every row i that is not in keep_idx (ascending).

    SEARCH_STEPS: halvings that a search among `kept` entries takes.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row_mask = rows < rows_of_x
    low, high = tl.zeros((ROWS,), tl.int32), tl.zeros((ROWS,), tl.int32) + kept
    for _ in range(SEARCH_STEPS):  # the first entry that is not below the row
        middle = (low + high) // 2
        below = tl.load(keep_idx + middle, mask=middle < high, other=2147483647) < rows
        low, high = tl.where(below, middle + 1, low), tl.where(below, high, middle)
    stays = tl.load(keep_idx + low, mask=low < kept, other=-1) == rows
    target = tl.load(token_idx + rows, mask=row_mask, other=-1)
    mask = (row_mask & (stays == 0) & (target >= 0) & (target < out_rows))[:, None] & (columns[None, :] < width)
    values = tl.load(x + rows[:, None].to(tl.int64) * width + columns[None, :], mask=mask, other=0)
    tl.store(out + target[:, None].to(tl.int64) * width + columns[None, :], values, mask=mask)


@triton.jit(do_not_specialize=ROW_COUNTS)
def count_live(mask_values, counts, length, BLOCK: tl.constexpr):
    """Grid (B): how many entries of each row of a (B, L) mask are not zero."""
    text = tl.program_id(0)
    count = tl.full((), 0, tl.int32)
    for first in range(0, length, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        live = tl.load(mask_values + text.to(tl.int64) * length + columns, mask=columns < length, other=0) != 0
        count += tl.sum(live.to(tl.int32), axis=0)
    tl.store(counts + text, count)


@triton.jit(do_not_specialize=ROW_COUNTS)
def place_live(
    mask_values, counts, token_idx, cu_seqlens, position, length, BLOCK: tl.constexpr, COUNT_BLOCK: tl.constexpr
):
    """Grid (B): flat indices and positions of the live entries, row after row, and the rows' bounds."""
    text = tl.program_id(0)
    place = counted_before(counts, text, COUNT_BLOCK)
    if text == 0:
        tl.store(cu_seqlens, 0)
    tl.store(cu_seqlens + text + 1, place + tl.load(counts + text))
    seen = tl.full((), 0, tl.int32)
    for first in range(0, length, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        inside = columns < length
        live = tl.load(mask_values + text.to(tl.int64) * length + columns, mask=inside, other=0) != 0
        live = live & inside
        own = seen + tl.cumsum(live.to(tl.int32), axis=0) - live.to(tl.int32)
        tl.store(token_idx + place + own, text * length + columns, mask=live)
        tl.store(position + place + own, own, mask=live)
        seen += tl.sum(live.to(tl.int32), axis=0)


# Bytes of a row that a program moves at a time, and elements of all its rows: a few loads of 16 bytes for each thread.
ROW_BYTES, TILE = 2048, 2048
MASK_BLOCK = 256
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def compact(x, keep_idx, total):
    """As the op of that name."""
    out = x.new_empty((total, *x.shape[1:]))
    gather_into(out, x, keep_idx)
    return out


def compact_many(xs, keep_idx, total):
    """As the op of that name."""
    return [compact(x, keep_idx, total) for x in xs]


def gather_into(out, x, index, count=None):
    """out[i] = x[index[i]] for the rows of `out`, or the first count[0] of them."""
    rows = out.shape[0]
    out, x = as_integers(out), as_integers(x)
    if not out.numel():
        return
    grid, tile = _tiles(rows, out)
    with on_device(out):
        gather_rows[grid](
            x, index, out, rows, x.shape[0], out.shape[1], x.stride(0), given(count, index),
            COUNTED=count is not None, **tile,
        )  # fmt: skip


def pack_index(attention_mask):
    """As the op of that name."""
    token_idx, cu_seqlens, position = pack_index_with_room(attention_mask, attention_mask.numel())
    live = live_rows(cu_seqlens)
    return token_idx[:live], cu_seqlens, position[:live]


def pack_index_with_room(attention_mask, room):
    """What the op `pack_index` gives, without a host sync: token_idx and position have `room` >= B * L entries, zeros past the live ones."""
    texts, length = attention_mask.shape
    mask_values = attention_mask.view(torch.int8) if attention_mask.dtype == torch.bool else attention_mask
    counts = attention_mask.new_empty(texts, dtype=torch.int32)
    cu_seqlens = counts.new_zeros(texts + 1)
    token_idx, position = counts.new_zeros((2, room))
    if texts:
        with on_device(attention_mask):
            count_live[(texts,)](mask_values, counts, length, BLOCK=MASK_BLOCK)
            place_live[(texts,)](
                mask_values, counts, token_idx, cu_seqlens, position, length, BLOCK=MASK_BLOCK, COUNT_BLOCK=COUNT_BLOCK
            )
    return token_idx, cu_seqlens, position


def pack(x, attention_mask):
    """As the op of that name."""
    token_idx, cu_seqlens, _ = pack_index(attention_mask)
    return compact(x.flatten(0, 1), token_idx, token_idx.shape[0]), cu_seqlens, token_idx


def unpack(packed, token_idx, batch, length):
    """As the op of that name."""
    padded = packed.new_zeros((batch * length, *packed.shape[1:]))
    scatter_into(padded, packed, token_idx)
    return padded.unflatten(0, (batch, length))


def scatter_into(out, x, index, count=None, flags=None):
    """out[index[i]] = x[i] for the rows of x, or the first count[0] of them; with flags only for those that have none."""
    rows, target = as_integers(x.contiguous()), as_integers(out)
    if not rows.numel():
        return
    grid, tile = _tiles(rows.shape[0], rows)
    with on_device(out):
        scatter_rows[grid](
            rows, index, target, given(flags, target), rows.shape[0], target.shape[0], rows.shape[1], given(count, index),
            COUNTED=count is not None, FLAGGED=flags is not None, **tile,
        )  # fmt: skip


def store_exits_(out, x, token_idx, keep_idx):
    """As the op of that name."""
    places = out.contiguous()  # out itself, as a rule
    rows, target = as_integers(x.contiguous()), as_integers(places)
    if rows.numel():
        kept = keep_idx.shape[0]
        grid, tile = _tiles(rows.shape[0], rows)
        with on_device(out):
            store_leavers[grid](
                rows, token_idx, keep_idx if kept else token_idx, target, rows.shape[0], kept, out.shape[0], rows.shape[1],
                SEARCH_STEPS=kept.bit_length(), **tile,
            )  # fmt: skip
    if places is not out:
        out.copy_(places)


def as_integers(x):
    """(rows, elements) of integers of x's element size: rows are moved, not read. The same memory where a row's elements lie together."""
    rows = x.flatten(1) if x.dim() > 1 else x[:, None]
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    if x.dtype.itemsize == 16:
        return torch.view_as_real(rows).flatten(1).view(torch.int64)
    return rows.view(_INTEGERS[x.dtype.itemsize])


def _tiles(rows, integers):
    """Grid and tile sizes for a tensor of so many rows to move."""
    width = integers.shape[1]
    block = min(power_of_two(width), ROW_BYTES // integers.dtype.itemsize)
    row_block = min(power_of_two(rows), max(1, TILE // block))
    return (blocks(rows, row_block), blocks(width, block)), {"ROWS": row_block, "BLOCK": block}
