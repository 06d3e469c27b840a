"""Which tokens stay, sequence by sequence."""

import math
from itertools import pairwise

import torch


def keep_threshold(importance, cu_seqlens, threshold, protected=None, protect_first=True, capacity=False):
    """Rows with importance >= threshold, and those that always stay; at least the most important one of a sequence."""
    keep = _always_kept(importance, cu_seqlens, protected, protect_first) | (importance >= threshold)
    for rows in _sequences(cu_seqlens):
        if not keep[rows].any():
            keep[rows.start + importance[rows].argmax()] = True  # the first of several maxima
    return _kept_rows(keep, cu_seqlens, capacity)


def keep_topk(importance, cu_seqlens, keep_ratio, protected=None, protect_first=True, capacity=False, count_first=True):
    """The max(1, ceil(keep_ratio * n - 1e-9)) most important of each sequence's n rows, always-kept ones counting first.

    Without count_first the ratio is of the n - 1 rows past the first, which stays beside them.
    """
    apart = 0 if count_first else 1
    keep = _always_kept(importance, cu_seqlens, protected, protect_first)
    for rows in _sequences(cu_seqlens):
        wanted = max(1, apart + math.ceil(keep_ratio * (rows.stop - rows.start - apart) - 1e-9))
        candidates = (~keep[rows]).nonzero().flatten()
        free_places = max(0, wanted - int(keep[rows].sum()))
        order = importance[rows][candidates].argsort(descending=True, stable=True)
        keep[rows.start + candidates[order[:free_places]]] = True
    return _kept_rows(keep, cu_seqlens, capacity)


def _sequences(cu_seqlens):
    """Row ranges of the sequences that are not empty."""
    return [slice(start, end) for start, end in pairwise(cu_seqlens.tolist()) if end > start]


def _always_kept(importance, cu_seqlens, protected, protect_first):
    """(T,) bool: NaN importance, protected rows, and the first row of each sequence if that is asked for."""
    keep = importance.isnan()
    if protected is not None:
        keep = keep | protected
    if protect_first:
        keep[cu_seqlens[:-1][cu_seqlens.diff() > 0]] = True
    return keep


def _kept_rows(keep, cu_seqlens, capacity):
    """keep_idx and new_cu_seqlens of a (T,) bool; with capacity keep_idx has T rows, zeros past the kept ones."""
    keep_idx = keep.nonzero().flatten().to(torch.int32)
    if capacity:
        keep_idx = torch.cat([keep_idx, keep_idx.new_zeros(keep.shape[0] - keep_idx.shape[0])])
    kept_before = torch.cat([keep.new_zeros(1, dtype=torch.int32), keep.cumsum(0, dtype=torch.int32)])
    return keep_idx, kept_before[cu_seqlens]
