"""Linear layers whose weight was packed once, for any number of rows."""

import torch
from torch import Tensor

from ..reference.linear import ACTIVATIONS
from . import checks
from .arguments import dense, traced

_pack_weight = torch.ops.tokprune.pack_weight.default
_packed_linear = torch.ops.tokprune.packed_linear.default


def pack_weight(weight: Tensor) -> Tensor:
    """A linear layer's weight in the layout that `packed_linear` reads, the same on every machine.

    Args:
        weight: (N, K) float32 or bfloat16.

    Returns:
        zero-padded panels of 64 outputs: float32 (ceil(N/64), K, 64), bfloat16 (ceil(N/64), ceil(K/2), 64, 2). A copy: it
        does not follow later changes of the weight.

    Raises:
        TypeError: wrong type or dtype.   ValueError: wrong shape.
    """
    if not traced():
        checks.pack_weight(weight)
    return _pack_weight(dense(weight))


def packed_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out_features: int,
    activation: str = "none",
    rows: Tensor | None = None,
) -> Tensor:
    """activation(x[rows] W^T + bias) with a packed weight; for inference, it has no gradient.

    Args:
        x: (T, K) float32 or bfloat16.
        weight: what `pack_weight` made of a (N, K) weight in x's dtype.
        bias: (N,) in x's dtype, or None.
        out_features: N.
        activation: "none", "gelu" (with erf), "gelu_tanh" or "relu".
        rows: (M,) int32 rows of x to read, or None for all.

    Returns:
        (M, N), or (T, N) without rows, in x's dtype; sums are taken in float32.

    Raises:
        TypeError: wrong type or dtype.   ValueError: wrong shape or device, unknown activation, a row out of range.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(map(repr, ACTIVATIONS))}, got {activation!r}")
    code = ACTIVATIONS[activation]
    if not traced():
        checks.packed_linear(x, weight, bias, out_features, code, rows)
    x = x if x.stride(1) == 1 else dense(x)
    return _packed_linear(x, dense(weight), dense(bias), out_features, code, dense(rows))
