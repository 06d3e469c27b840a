"""What layers keep for the backward pass: less than autograd would by itself, with the same results and gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def through_activation(activation: Callable[[Tensor], Tensor], x: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
    """project(activation(x)), where what `project` keeps of its input is computed again from x when gradients want it.

    For activations whose own gradient keeps x, as GELU's does: of the two widest tensors of a layer one is left, a quarter of
    what a layer of BERT keeps in float32, for one more GELU. The same bits come out.
    """
    activated = activation(x)
    # Not the tensor itself: the hook lives as long as the graph.
    address, shape, stride = activated.data_ptr(), activated.shape, activated.stride()

    def pack(kept: Tensor) -> Tensor | None:
        same = kept.data_ptr() == address and kept.shape == shape and kept.stride() == stride
        return None if same and kept.dtype == x.dtype else kept

    def unpack(kept: Tensor | None) -> Tensor:
        if kept is not None:
            return kept
        with torch.no_grad():  # autograd joins what it gets to the graph itself
            return activation(x)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return project(activated)


def for_three(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x for three projections: under autocast one copy in its dtype, where each of them would make and keep its own."""
    if x.dtype != torch.float32 or not torch.is_autocast_enabled(x.device.type):
        return x, x, x
    return _SharedCast.apply(x, torch.get_autocast_dtype(x.device.type))


class _SharedCast(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dtype):
        cast = x.to(dtype)
        return cast, cast.detach(), cast.detach()

    @staticmethod
    def backward(ctx, *grads):
        # Added in float32, as they are when each projection has a copy of its own.
        first, second, third = grads
        return first.float() + second + third, None
