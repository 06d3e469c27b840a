"""Exit states: the last hidden state of every token that leaves, and how they come back into the padded output."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from ..packing import PackedBatch
from ..reference.encoder import survivor_means


class Exits:
    """Takes the rows that leave; this form drops them, for heads that read only each text's first live token."""

    def __init__(self, batch: PackedBatch):
        self.batch = batch

    def leave(self, x: Tensor, token_idx: Tensor, keep_idx: Tensor) -> None:
        """Take the rows of x (T, H) that are not in keep_idx (T',) int32; token_idx (T,) int32 says where they belong."""

    def restore(self, x: Tensor, token_idx: Tensor) -> Tensor:
        """(B, L, H): x (T', H) where its tokens belong, exit states of those that left, zeros at padding. Once, at the end."""
        raise NotImplementedError("this form drops the rows that leave")

    def snapshot(self, x: Tensor, token_idx: Tensor) -> Tensor:
        """As `restore`, after a layer in between."""
        raise NotImplementedError("this form drops the rows that leave")


class ExitBuffer(Exits):
    """For inference: each row is written once, in place, into one zeroed (B * L, H) buffer."""

    def __init__(self, batch: PackedBatch, kernels: SimpleNamespace):
        super().__init__(batch)
        self.kernels = kernels
        self.buffer: Tensor | None = None  # until the first token leaves none is needed

    def leave(self, x: Tensor, token_idx: Tensor, keep_idx: Tensor) -> None:
        if self.buffer is None:
            self.buffer = x.new_zeros(self.batch.batch * self.batch.length, x.shape[1])
        self.kernels.store_exits_(self.buffer, x, token_idx, keep_idx)

    def restore(self, x: Tensor, token_idx: Tensor) -> Tensor:
        return self._complete(self.buffer, x, token_idx)

    def snapshot(self, x: Tensor, token_idx: Tensor) -> Tensor:
        return self._complete(None if self.buffer is None else self.buffer.clone(), x, token_idx)

    def _complete(self, buffer: Tensor | None, x: Tensor, token_idx: Tensor) -> Tensor:
        padded = (self.batch.batch, self.batch.length, x.shape[1])
        if buffer is not None:
            self.kernels.store_exits_(buffer, x, token_idx, token_idx[:0])
            return buffer.view(padded)
        if self.batch.has_padding:
            return self.kernels.unpack(x, token_idx, *padded[:2])
        return x.view(padded)


class ExitList(Exits):
    """For training: rows are collected and put together out of place, so that gradients reach them."""

    def __init__(self, batch: PackedBatch):
        super().__init__(batch)
        self.rows: list[Tensor] = []
        self.places: list[Tensor] = []

    def leave(self, x: Tensor, token_idx: Tensor, keep_idx: Tensor) -> None:
        leaves = torch.ones(x.shape[0], dtype=torch.bool, device=x.device)
        leaves[keep_idx] = False
        rows = leaves.nonzero().flatten()
        self.rows.append(x.index_select(0, rows))
        self.places.append(token_idx.index_select(0, rows))

    def restore(self, x: Tensor, token_idx: Tensor) -> Tensor:
        places, rows = torch.cat([*self.places, token_idx]), torch.cat([*self.rows, x])
        flat = x.new_zeros(self.batch.batch * self.batch.length, x.shape[1])
        return flat.index_copy(0, places.long(), rows).view(self.batch.batch, self.batch.length, x.shape[1])

    snapshot = restore


def with_survivor_means(x: Tensor, token_idx: Tensor, cu_seqlens: Tensor, batch: PackedBatch) -> Tensor:
    """(B, L, H): survivors' states x (T', H) where they belong, the mean of their text's at those that left, zeros at padding."""
    flat = x.new_zeros(batch.batch * batch.length, x.shape[1])
    rows = survivor_means(x, cu_seqlens).repeat_interleave(batch.lengths.long(), dim=0, output_size=batch.total)
    flat = flat.index_copy(0, batch.token_idx.long(), rows).index_copy(0, token_idx.long(), x)
    return flat.view(batch.batch, batch.length, x.shape[1])
