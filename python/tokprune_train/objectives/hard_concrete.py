"""The hard-concrete distribution (Louizos et al., ICLR 2018): random gates in [0, 1] that are often exactly 0 or 1."""

import math

import torch
from torch import Tensor

TEMPERATURE = 2 / 3
# The interval that the concrete distribution is stretched to, before it is cut off at 0 and 1.
LOW, HIGH = -0.1, 1.1


def hard_concrete(logits: Tensor, uniform: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Gate values z = clamp(sigmoid((logit(u) + a) / t) * 1.2 - 0.1, 0, 1).

    Args:
        logits: (...) float, a.
        uniform: (...) of the same shape, u in [0, 1], drawn uniformly.
        temperature: t > 0.

    Returns:
        (...) in [0, 1]; gradients reach the logits where z is strictly between 0 and 1.

    Raises:
        ValueError: the shapes differ, or temperature is not positive.
    """
    _check_temperature(temperature)
    if logits.shape != uniform.shape:
        raise ValueError(f"uniform must have the shape of logits, {tuple(logits.shape)}, got {tuple(uniform.shape)}")
    return (torch.sigmoid((torch.logit(uniform) + logits) / temperature) * (HIGH - LOW) + LOW).clamp(0, 1)


def open_probability(logits: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """P(z > 0) of `hard_concrete` = 1 - sigmoid(logit(0.1 / 1.2) * t - a), in the shape of the logits; differentiable.

    Raises ValueError if temperature is not positive.
    """
    _check_temperature(temperature)
    zero = -LOW / (HIGH - LOW)
    return torch.sigmoid(logits - temperature * math.log(zero / (1 - zero)))


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
