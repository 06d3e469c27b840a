"""The score denominator that lies between a constant and the rows alive."""

from torch import Tensor


def square_roots(cu_seqlens: Tensor) -> Tensor:
    """(B,) float32: the square root of each sequence's number of rows, 1 for an empty one, which has no scores but needs a D > 0."""
    return cu_seqlens.diff().clamp(min=1).float().sqrt()
