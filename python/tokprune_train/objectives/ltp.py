"""The soft stage of LTP (Learned Token Pruning, Kim et al., KDD 2022): differentiable masks and their regulariser."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .ragged import mean_over_texts, per_text_mean


LINE_STARTS = (0, 1)


def threshold_line(final: float, num_layers: int, start: int = 0) -> list[float]:
    """Thresholds that rise linearly with depth: base_l = final * (l + start) / num_layers, l from 0 (LTP's starting line).

    Early layers, whose importance says little yet, start with low ones. LTP uses final = 0.01 for texts of 128 tokens; mean
    importance is 1 / n, so shorter texts want a higher one.

    start: 0, as LTP's code has it: the first layer prunes nothing and the last one's threshold is a step below final. 1: as its
        paper says it, the last layer's threshold is final.

    Raises:
        ValueError: final is negative or not finite, there are no layers, or start is neither 0 nor 1.
    """
    if start not in LINE_STARTS:
        raise ValueError(f"start must be 0 (the first layer prunes nothing) or 1 (the last one's threshold is final), got {start!r}")
    if not 0 <= final < float("inf"):
        raise ValueError(f"final must be a finite threshold >= 0, got {final}")
    if num_layers < 1:
        raise ValueError(f"num_layers must be at least 1, got {num_layers}")
    return [final * (layer + start) / num_layers for layer in range(num_layers)]


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


def mask_regularizer(masks: Sequence[Tensor], cu_seqlens: Tensor) -> Tensor:
    """The share of its tokens that a text's layers pass on, summed over the layers: sum_l mean_i M_i^l (LTP, without lambda).

    It is the mean over the texts that are not empty of each text's own value. LTP's code takes the mean over all tokens of
    the batch at once, where long texts count more; here each text counts the same, so that the value of a batch is the mean
    of the values of its equal parts (data parallel). Times lambda (LTP searched 0.01 to 0.2) it is added to the task loss.

    Args:
        masks: for each layer its soft mask (T,), of the same tokens: the soft stage removes none.
        cu_seqlens: (B + 1,) integers, row bounds of the texts.

    Returns:
        scalar between 0 and the number of layers; 0 if all texts are empty.

    Raises:
        ValueError: no layers, masks of different lengths, or cu_seqlens that do not end at T.
    """
    if not masks:
        raise ValueError("masks must hold the soft mask of at least one layer, got none")
    lengths = sorted({len(mask) for mask in masks})
    if len(lengths) > 1:
        raise ValueError(f"masks must hold one value for each token in every layer, got layers of {lengths} tokens")
    shares = per_text_mean(torch.stack(tuple(masks), dim=1), cu_seqlens)
    return mean_over_texts(shares, cu_seqlens.diff() > 0).sum()
