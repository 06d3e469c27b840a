"""What an op asks of its arguments' elements: one function per op that asks anything, with the op's signature.

They read data, so on a GPU they cost a host sync. The compiled kernels have their own; these run with the reference.
All raise ValueError.
"""

import torch

from ..reference.encoder import PLACED


def attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators=None, key_bias=None, row_weights=None):
    varlen_attention(q, k, v, cu_seqlens, max_seqlen, scale)
    if denominators is not None:
        _entries("denominators", denominators, denominators > 0, "positive and finite")
    if key_bias is not None:
        _entries("key_bias", key_bias, True, "finite (-1e4 takes a key out)")
    if row_weights is not None:
        _entries("row_weights", row_weights, row_weights >= 0, "finite and not negative")


def attn_importance_backward(grad_context, grad_importance, *forward):
    attn_importance(*forward)


def varlen_attention(q, k, v, cu_seqlens, max_seqlen, scale):
    longest = _cu_seqlens(cu_seqlens, q.shape[0])
    if longest > max_seqlen:
        raise ValueError(f"max_seqlen must be at least the length of the longest sequence, {longest}, got {max_seqlen}")


def keep_threshold(importance, cu_seqlens, threshold, protected=None, protect_first=True, capacity=False):
    _cu_seqlens(cu_seqlens, importance.shape[0])


def keep_topk(importance, cu_seqlens, keep_ratio, protected=None, protect_first=True, capacity=False, count_first=True):
    _cu_seqlens(cu_seqlens, importance.shape[0])


def compact(x, keep_idx, total):
    _in_range("keep_idx", keep_idx[:total], x.shape[0])


def compact_many(xs, keep_idx, total):
    compact(xs[0], keep_idx, total)


def prune_attention(q, k, v, residual, cu_seqlens, max_seqlen, scale, threshold=None, keep_ratio=None, denominators=None, *_):
    attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators)


def unpack(packed, token_idx, batch, length):
    _in_range("token_idx", token_idx, batch * length)
    _ascending("token_idx", token_idx)


def store_exits_(out, x, token_idx, keep_idx):
    _apart("out", out, "x", x)
    _in_range("token_idx", token_idx, out.shape[0])
    _ascending("token_idx", token_idx)
    _in_range("keep_idx", keep_idx, x.shape[0])
    _ascending("keep_idx", keep_idx)


def packed_linear(x, weight, bias, out_features, activation=0, rows=None):
    if rows is not None:
        _in_range("rows", rows, x.shape[0])


def encoder(x, cu_seqlens, max_seqlen, weights, eps, heads, activation, scale, keep, topk, before_layer, denominators=None,
            protected=None, protect_first=True, readout=0, token_idx=None, places=0, sqrt_rows=False, count_first=True):  # fmt: skip
    attn_importance(x, x, x, cu_seqlens, max_seqlen, scale, denominators)
    if readout in PLACED:
        unpack(x, token_idx, places, 1)


def _cu_seqlens(cu_seqlens, total) -> int:
    """Check the bounds of the sequences and return the longest length."""
    bounds = cu_seqlens.tolist()
    lengths = [end - start for start, end in zip(bounds, bounds[1:])]
    if bounds[0] != 0 or bounds[-1] != total or any(length < 0 for length in lengths):
        raise ValueError(
            f"cu_seqlens must start at 0, never decrease and end at the number of rows, {total}; got {_shown(cu_seqlens)}"
        )
    return max(lengths, default=0)


def _entries(name, x, allowed, needed):
    bad = (~(x.isfinite() & allowed)).nonzero()
    if len(bad):
        raise ValueError(f"{name}: entry {int(bad[0])} is {float(x[bad[0]])}; every one must be {needed}")


def _apart(name, written, other_name, read):
    (first, first_end), (second, second_end) = ((x.data_ptr(), x.data_ptr() + x.nbytes) for x in (written, read.contiguous()))
    if first < second_end and second < first_end:
        raise ValueError(f"{name} must not share memory with {other_name}")


def _in_range(name, index, rows):
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < rows:
        raise ValueError(f"{name} must hold row numbers from 0 to {rows - 1}, got {_shown(index)}")


def _ascending(name, index):
    if not bool((index.diff() > 0).all()):
        raise ValueError(f"{name} must be strictly ascending, got {_shown(index)}")


def _shown(index: torch.Tensor) -> str:
    """The elements for an error message, shortened."""
    return str(index.tolist()) if index.numel() <= 16 else f"{index[:16].tolist()[:-1]} ... ({index.numel()} entries)"
