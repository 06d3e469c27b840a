"""Moving token rows: compaction, padded <-> packed, exit states."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks
from .arguments import dense, traced

_compact = torch.ops.tokprune.compact.default
_compact_many = torch.ops.tokprune.compact_many.default
_pack_index = torch.ops.tokprune.pack_index.default
_pack = torch.ops.tokprune.pack.default
_unpack = torch.ops.tokprune.unpack.default
_store_exits_ = torch.ops.tokprune.store_exits_.default


def compact(x: Tensor, keep_idx: Tensor, total: int) -> Tensor:
    """The rows x[keep_idx[i]] for i < total, in that order.

    Args:
        x: (T, ...) any dtype.
        keep_idx: (>= total,) int32 rows of x.
        total: how many entries of keep_idx to use.

    Returns:
        (total, ...) in x's dtype; differentiable.

    Raises:
        TypeError: wrong type or dtype.   ValueError: wrong shape or device, total or an index out of range.
    """
    if not traced():
        checks.compact(x, keep_idx, total)
    return _compact(dense(x), dense(keep_idx), total)


def compact_many(xs: Sequence[Tensor], keep_idx: Tensor, total: int) -> list[Tensor]:
    """`compact` of several tensors of T rows by the same indices, in one pass; same arguments, errors and gradients."""
    if not traced():
        checks.compact_many(xs, keep_idx, total)
    return _compact_many([dense(x) for x in xs], dense(keep_idx), total)


def pack_index(attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where the live tokens of a padded batch are.

    Args:
        attention_mask: (B, L) bool, uint8, int32, int64 or float32; non-zero = live, on any side and with holes.

    Returns:
        token_idx (T,) int32, their flat indices b * L + l, ascending; cu_seqlens (B + 1,) int32; position (T,) int32, each
        token's index among the live ones of its text.

    Raises:
        TypeError: wrong type or dtype.   ValueError: wrong shape.
    """
    if not traced():
        checks.pack_index(attention_mask)
    return _pack_index(dense(attention_mask))


def pack(x: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The live rows of a padded tensor.

    Args:
        x: (B, L, ...) any dtype.
        attention_mask: (B, L) as in `pack_index`.

    Returns:
        packed (T, ...), differentiable; cu_seqlens (B + 1,) int32; token_idx (T,) int32.

    Raises:
        TypeError: wrong type or dtype.   ValueError: wrong shape or device.
    """
    if not traced():
        checks.pack(x, attention_mask)
    return _pack(dense(x), dense(attention_mask))


def unpack(packed: Tensor, token_idx: Tensor, batch: int, length: int) -> Tensor:
    """The padded tensor whose flat rows token_idx are the packed ones, zeros elsewhere.

    Args:
        packed: (T, ...) any dtype.
        token_idx: (T,) int32, strictly ascending, each below batch * length.
        batch, length: B and L of the result.

    Returns:
        (B, L, ...) in packed's dtype; differentiable.

    Raises:
        TypeError: wrong type or dtype.   ValueError: wrong shape or device, an index out of range or order.
    """
    if not traced():
        checks.unpack(packed, token_idx, batch, length)
    return _unpack(dense(packed), dense(token_idx), batch, length)


def store_exits_(out: Tensor, x: Tensor, token_idx: Tensor, keep_idx: Tensor) -> None:
    """Write the rows that leave into a padded buffer: out[token_idx[i]] = x[i] for every i that is not in keep_idx.

    Args:
        out: (B * L, H) contiguous, changed in place.
        x: (T, H) in out's dtype.
        token_idx: (T,) int32, strictly ascending rows of out.
        keep_idx: (T',) int32, strictly ascending rows of x that stay; empty: all rows are written.

    Raises:
        TypeError: wrong type or dtype.   ValueError: wrong shape or device, an index out of range or order.
    """
    if not traced():
        checks.store_exits_(out, x, token_idx, keep_idx)
    _store_exits_(out, dense(x), dense(token_idx), dense(keep_idx))
