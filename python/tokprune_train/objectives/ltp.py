"""The soft stage of LTP (Learned Token Pruning, Kim et al., KDD 2022): differentiable masks and their regulariser."""

from collections.abc import Sequence

import torch
from torch import Tensor


def soft_mask(importance: Tensor, threshold: Tensor | float, temperature: float) -> Tensor:
    """How much of each token a layer passes on: M = sigmoid((s - theta) / T), in (0, 1) (LTP, soft pruning).

    It multiplies the layer's output; as T goes to 0 it becomes the hard decision s >= theta.

    Args:
        importance: (T,) float, s of the tokens in this layer.
        threshold: scalar, theta of the layer; a tensor that requires grad to learn it.
        temperature: T > 0, in units of importance; LTP searched 1e-4 to 2e-3.

    Returns:
        (T,) in importance's dtype; gradients reach importance and threshold.

    Raises:
        ValueError: temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}: the mask is sigmoid((s - theta) / temperature)")
    return torch.sigmoid((importance - threshold) / temperature)


def mask_regularizer(masks: Sequence[Tensor]) -> Tensor:
    """The share of the tokens that layers pass on, summed over the layers: sum_l mean_i M_i^l (LTP, the regulariser of the soft stage, without lambda).

    Times lambda (LTP searched 0.01 to 0.2) it is added to the task loss.

    Args:
        masks: for each layer its soft mask (T_l,).

    Returns:
        scalar between 0 and the number of layers; a layer without tokens adds nothing.

    Raises:
        ValueError: no layers.
    """
    if not masks:
        raise ValueError("masks must hold the soft mask of at least one layer, got none")
    return torch.stack([mask.sum() / max(mask.numel(), 1) for mask in masks]).sum()
