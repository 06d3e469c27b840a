"""Which tokens stay, sequence by sequence."""

import torch
from torch import Tensor

from . import checks
from .arguments import dense, traced

_keep_threshold = torch.ops.tokprune.keep_threshold.default
_keep_topk = torch.ops.tokprune.keep_topk.default


def keep_threshold(
    importance: Tensor,
    cu_seqlens: Tensor,
    threshold: float,
    protected: Tensor | None = None,
    protect_first: bool = True,
    capacity: bool = False,
) -> tuple[Tensor, Tensor]:
    """The rows whose importance reaches the threshold (LTP, Kim et al., KDD 2022).

    Protected rows, first rows (with protect_first) and NaN stay in any case. No sequence is emptied: if none of its rows
    would stay, the most important one does, the lower position winning ties.

    Args:
        importance: (T,) float32 (float64 on the reference); the threshold is compared in its dtype.
        cu_seqlens: (B + 1,) int32, row bounds of the sequences.
        threshold: finite, in units of importance.
        protected: (T,) bool or None.
        protect_first: the first row of every sequence stays.
        capacity: return T entries of keep_idx whatever the decision, zeros past new_cu_seqlens[-1], so that the host need
            not know the count.

    Returns:
        keep_idx (T',) int32, ascending rows, and new_cu_seqlens (B + 1,) int32.

    Raises:
        TypeError: wrong type or dtype.   ValueError: wrong shape, device or value.
    """
    if not traced():
        checks.keep_threshold(importance, cu_seqlens, threshold, protected, protect_first, capacity)
    return _keep_threshold(dense(importance), dense(cu_seqlens), threshold, dense(protected), protect_first, capacity)


def keep_topk(
    importance: Tensor,
    cu_seqlens: Tensor,
    keep_ratio: float,
    protected: Tensor | None = None,
    protect_first: bool = True,
    capacity: bool = False,
    count_first: bool = True,
) -> tuple[Tensor, Tensor]:
    """The k = max(1, ceil(keep_ratio * n - 1e-9)) most important of each sequence's n rows (ToP, Li et al., KDD 2023).

    Protected rows, first rows (with protect_first) and NaN stay in any case and count towards k; the remaining places go to
    the highest importance, the lower position winning ties. If more than k stay in any case, all of them do.

    Args:
        keep_ratio: in (0, 1], the share of the rows that stays.
        count_first: False takes the ratio of the rows past the first, which is not ranked and stays beside them:
            k = min(n, 1 + ceil(keep_ratio * (n - 1) - 1e-9)), as ToP's official code counts. Needs protect_first.
        the others: as in `keep_threshold`.

    Returns:
        keep_idx (T',) int32, ascending rows, and new_cu_seqlens (B + 1,) int32.

    Raises:
        TypeError: wrong type or dtype.   ValueError: wrong shape, device or value.
    """
    if not traced():
        checks.keep_topk(importance, cu_seqlens, keep_ratio, protected, protect_first, capacity, count_first)
    protected = dense(protected)
    return _keep_topk(dense(importance), dense(cu_seqlens), keep_ratio, protected, protect_first, capacity, count_first)
