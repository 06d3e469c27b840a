"""What a forward pass reports besides its output: what was pruned where, and the hidden states in between."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..packing import PackedBatch
from .exits import Exits


class PruningOutput(NamedTuple):
    """What the layers kept.

    kept_lengths: (num_layers + 1, B) int64; row l = tokens alive as keys in layer l's attention, last row = alive at the end.
    kept_mask: (num_layers + 1, B, L) bool; which input positions those are.
    importance: (num_layers, B, L) float32, of the tokens alive in layer l's attention, 0 elsewhere.
    """

    kept_lengths: Tensor
    kept_mask: Tensor
    importance: Tensor


class Recorder:
    """Collects one forward pass layer by layer."""

    def __init__(self, batch: PackedBatch):
        self.batch = batch
        self.lengths: list[Tensor] = []
        self.masks: list[Tensor] = []
        self.importance: list[Tensor] = []

    def attended(self, token_idx: Tensor, cu_seqlens: Tensor, importance: Tensor) -> None:
        """One layer's attention ran over these tokens and gave them this importance (T,)."""
        self._alive(token_idx, cu_seqlens)
        self.importance.append(self._padded(importance, token_idx))

    def finish(self, token_idx: Tensor, cu_seqlens: Tensor) -> PruningOutput:
        """These tokens are alive at the end."""
        self._alive(token_idx, cu_seqlens)
        return PruningOutput(torch.stack(self.lengths), torch.stack(self.masks), torch.stack(self.importance))

    def _alive(self, token_idx: Tensor, cu_seqlens: Tensor) -> None:
        self.lengths.append(cu_seqlens.diff().long())
        self.masks.append(self._padded(torch.ones_like(token_idx, dtype=torch.bool), token_idx))

    def _padded(self, values: Tensor, token_idx: Tensor) -> Tensor:
        flat = values.new_zeros(self.batch.batch * self.batch.length)
        return flat.index_copy(0, token_idx.long(), values).view(self.batch.batch, self.batch.length)


class HiddenStates:
    """Collects the padded (B, L, H) states: at the entry of the first layer, then after every layer."""

    def __init__(self, exits: Exits):
        self.exits = exits
        self.states: list[Tensor] = []

    def append(self, x: Tensor, token_idx: Tensor) -> Tensor:
        """The tokens alive have these states x (T, H); those that left keep the ones they left with. Returns x to go on with."""
        state = self.exits.snapshot(x, token_idx)
        self.states.append(state)
        if not x.requires_grad:
            return x
        return state.flatten(0, 1).index_select(0, token_idx)  # through the state handed out, so that it has a gradient
