"""What is not finite goes nowhere: the first such loss ends a training, and nothing made of NaN or infinity is scored or saved."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn


class NotFiniteError(ValueError):
    """NaN or infinity where a number is needed, said in one sentence."""


class LossWatch:
    """The first step of a training whose loss was not finite, in any of its processes.

    On a CPU every loss is looked at as it comes. On a GPU a look waits for the device, so there it is noted and asked for at times.
    """

    def __init__(self):
        self._first: Tensor | None = None

    def see(self, loss: Tensor, step: int) -> None:
        """Note the loss of a step; NotFiniteError at once on a CPU."""
        if self._first is None:
            self._first = torch.full((), _NEVER, dtype=torch.int64, device=loss.device)
        self._first = torch.where(loss.detach().isfinite(), self._first, self._first.clamp(max=step))
        if loss.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Raise NotFiniteError, in all processes alike, if a loss was not finite; all must call it."""
        if self._first is None:
            return
        first = self._first.clone()
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(first, distributed.ReduceOp.MIN)
        if int(first) != _NEVER:
            raise NotFiniteError(f"the loss of step {int(first) + 1} is not finite")


def check_weights(module: nn.Module) -> None:
    """Raise NotFiniteError for a module of which a tensor is not finite."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise NotFiniteError(f"the weights are not finite any more, {name} the first of them")


def check_answers(logits: Tensor) -> None:
    """Raise NotFiniteError for answers (N, C) that are not finite: they have no order that a score could be of."""
    bad = int((~logits.isfinite().all(dim=-1)).sum())
    if bad:
        raise NotFiniteError(
            f"the model's answers are not finite (NaN or infinity) for {bad} of {len(logits)} texts: its weights are too large or broken, and "
            "nothing is made of such answers; take a checkpoint from before"
        )


_NEVER = 2**62
