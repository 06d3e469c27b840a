"""Saliency: how much of a dense model's answer hangs on each of its tokens, by gradients instead of attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def saliency(model: nn.Module, inputs: dict[str, Tensor], bf16: bool = False) -> Tensor:
    """(T,) float32 >= 0 of the packed tokens: |d margin / d w_l|, w_l being the weight that the token has after layer l in soft
    pruning, here 1; the mean over the layers but the last, after which no layer is left that would miss a token.

    To first order it is what the margin would lose if the token left there. The margin is the log-odds of the class that the
    model decides for, or the value that it gives in regression.

    model: unpruned, with a head on [CLS]; its parameters get no gradients.   inputs: keyword arguments without labels.
    bf16: mixed precision; a share of a text's saliency needs no more.
    """
    weights = _Weights()
    device = inputs["input_ids"].device.type
    with torch.enable_grad(), _without_gradients(model), torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
        logits = model(**inputs, soft_pruning=weights)["logits"]
        *read, last = weights.after
        if not read:
            return torch.zeros_like(last)
        gradients = torch.autograd.grad(_margin(logits.float()).sum(), read)
    return torch.stack(gradients).abs().mean(dim=0)


def _margin(logits: Tensor) -> Tensor:
    """(B,) of (B, C) logits."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    decided, place = logits.max(dim=1)
    return decided - logits.scatter(1, place[:, None], -torch.inf).logsumexp(dim=1)


class _Weights:
    """A soft pruner that leaves every token its full weight, and notes the factors through which gradients reach it."""

    masks, score_denominator = "attention", "kept"

    def __init__(self):
        self.after: list[Tensor] = []

    def __call__(self, layer: int, importance: Tensor, weights: Tensor, cu_seqlens: Tensor) -> Tensor:
        self.after.append(torch.ones_like(weights).requires_grad_())
        return weights * self.after[-1]


@contextmanager
def _without_gradients(model: nn.Module) -> Iterator[None]:
    """The backward pass then skips the parameters, half of its work."""
    asked = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)
