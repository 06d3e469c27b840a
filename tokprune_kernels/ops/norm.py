"""Residual addition and LayerNorm."""

import torch
from torch import Tensor

from . import checks
from .arguments import dense, traced

_add_layer_norm = torch.ops.tokprune.add_layer_norm.default


def add_layer_norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm(x + residual) * weight + bias over the last dimension, in one pass.

    Args:
        x, residual: (T, H) float32 or bfloat16 (float16 and float64 on the reference).
        weight, bias: (H,) in x's dtype.
        eps: added to the variance, not negative.

    Returns:
        (T, H) in x's dtype; mean and variance are taken in float32 (float64 for float64). Differentiable.

    Raises:
        TypeError: wrong type or dtype.   ValueError: wrong shape, device or value.
    """
    if not traced():
        checks.add_layer_norm(x, residual, weight, bias, eps)
    return _add_layer_norm(dense(x), dense(residual), dense(weight), dense(bias), eps)
