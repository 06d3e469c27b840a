"""Sums, means and ranks over texts of different lengths that lie one after another (packed), without a loop over the texts."""

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

# cu_seqlens -> (its version, the index): many terms of a loss ask it of one batch, and on a GPU every check waits for the device.
_INDEX = WeakTensorKeyDictionary()


def text_index(cu_seqlens: Tensor, total: int) -> Tensor:
    """(T,) int64: which text each packed token belongs to; not to be written to, the next caller gets the same tensor.

    Args:
        cu_seqlens: (B + 1,) integers, row bounds of the texts; a text may be empty.
        total: T, rows of what it is to index.

    Raises:
        ValueError: cu_seqlens has no bounds, or they do not end at T.
    """
    if cu_seqlens.dim() != 1 or not cu_seqlens.numel():
        raise ValueError(f"cu_seqlens must be (B + 1,) row bounds of the texts, got shape {tuple(cu_seqlens.shape)}")
    counted = not cu_seqlens.is_inference()  # else nothing tells whether it was written to since
    version, known = _INDEX.get(cu_seqlens, (None, None)) if counted else (None, None)
    if known is not None and version == cu_seqlens._version and len(known) == total:
        return known
    if int(cu_seqlens[-1]) != total:
        raise ValueError(f"cu_seqlens must end at the number of tokens, {total}, got {int(cu_seqlens[-1])}")
    lengths = cu_seqlens.diff()
    texts = torch.arange(len(lengths), device=cu_seqlens.device)
    index = texts.repeat_interleave(lengths, output_size=total)
    if counted:
        _INDEX[cu_seqlens] = (cu_seqlens._version, index)
    return index


def is_first_token(cu_seqlens: Tensor, total: int) -> Tensor:
    """(T,) bool: the first token of each text, [CLS]."""
    # One place more, for empty texts at the end; elsewhere an empty text begins where the next one does. So the host need not wait.
    first = torch.zeros(total + 1, dtype=torch.bool, device=cu_seqlens.device)
    return first.index_fill_(0, cu_seqlens[:-1].long(), True)[:total]


def at_least_float32(values: Tensor) -> Tensor:
    """float64 as it is, all else as float32: what sums and logarithms are taken in."""
    return values if values.dtype == torch.float64 else values.float()


def per_text_sum(values: Tensor, cu_seqlens: Tensor) -> Tensor:
    """The sum over each text's tokens: values (T, ...) -> (B, ...), 0 for an empty text; half precision becomes float32.

    Differentiable. On the CPU the order of the additions is fixed, so equal inputs give equal bits.

    Raises ValueError if cu_seqlens (B + 1,) does not end at T.
    """
    values = values if values.dtype == torch.int64 else at_least_float32(values)
    sums = values.new_zeros(len(cu_seqlens) - 1, *values.shape[1:])
    return sums.index_add(0, text_index(cu_seqlens, len(values)), values)


def per_text_mean(values: Tensor, cu_seqlens: Tensor) -> Tensor:
    """The mean over each text's tokens: values (T, ...) float -> (B, ...), 0 for an empty text; as `per_text_sum`."""
    lengths = cu_seqlens.diff().clamp(min=1)
    return per_text_sum(values, cu_seqlens) / lengths.view(-1, *[1] * (values.dim() - 1))


def mean_over_texts(values: Tensor, present: Tensor) -> Tensor:
    """The mean of values (B, ...) over the texts that are there: -> (...), 0 if none is.

    Each text counts the same, whatever its length, so the mean of a batch is the mean over its equal parts: what data-parallel
    training, which averages over processes, needs.

    present: (B,) bool, True for the texts that count.
    """
    chosen = present.view(-1, *[1] * (values.dim() - 1))
    # Not values * present: a text that does not count may hold anything.
    return torch.where(chosen, values, 0).sum(dim=0) / present.sum().clamp(min=1)


def rank_in_text(scores: Tensor, candidates: Tensor, cu_seqlens: Tensor) -> Tensor:
    """(T,) int64: the place of each candidate among those of its text, 0 for the highest score; -1 for the other tokens.

    Ties go to the earlier token. A NaN ranks first: pruning never lets a token go for it.

    Args:
        scores: (T,) float.
        candidates: (T,) bool.
        cu_seqlens: (B + 1,) integers, row bounds of the texts.

    Raises:
        ValueError: cu_seqlens does not end at T, or candidates has another shape than scores.
    """
    if candidates.shape != scores.shape or scores.dim() != 1:
        raise ValueError(
            f"scores and candidates must be (T,), got shapes {tuple(scores.shape)} and {tuple(candidates.shape)}"
        )
    texts = text_index(cu_seqlens, len(scores))
    by_score = scores.detach().argsort(descending=True, stable=True)
    by_score = by_score[candidates[by_score]]
    # Stable again: within a text the order by score stays.
    order = by_score[texts[by_score].argsort(stable=True)]
    counts = per_text_sum(candidates.long(), cu_seqlens)
    starts = counts.cumsum(0) - counts
    ranks = torch.full_like(texts, -1)
    ranks[order] = torch.arange(len(order), device=order.device) - starts[texts[order]]
    return ranks
