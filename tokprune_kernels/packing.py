"""A padded batch described as a packed one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import ops
from .ops.needs import MASKS


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Where the live tokens of a (batch, length) input are; T of them, text after text.

    cu_seqlens: (B + 1,) int32 row bounds of the texts.   max_seqlen: length of the longest text.
    token_idx: (T,) int32 flat indices b * length + l, ascending.
    position: (T,) int32, each token's index among the live ones of its text.
    starts_at_zero: every text's first live token is in column 0 (no left padding, no empty text); False where that is not known.
    exact: T is the number of live tokens. Else only the device knows it, cu_seqlens[-1], and token_idx and position have
        room for batch * length or more, what lies past the live ones being of no meaning.
    """

    cu_seqlens: Tensor
    max_seqlen: int
    token_idx: Tensor
    position: Tensor
    batch: int
    length: int
    starts_at_zero: bool
    exact: bool = True

    @classmethod
    def from_mask(cls, attention_mask: Tensor) -> PackedBatch:
        """From a (B, L) mask of any real dtype, non-zero = live; padding may be on any side, a text may be empty.

        Raises ValueError unless the mask has two dimensions.
        """
        if attention_mask.dim() != 2:
            raise ValueError(f"attention_mask must be (batch, length), got shape {tuple(attention_mask.shape)}")
        if attention_mask.dtype not in MASKS:
            attention_mask = attention_mask != 0
        token_idx, cu_seqlens, position = ops.pack_index(attention_mask)
        batch, length = attention_mask.shape
        if token_idx.shape[0] == batch * length:  # nothing to look for: at batch 1 these few operations can be felt
            longest, starts_at_zero = length if batch else 0, length > 0 or batch == 0
        else:
            longest = int(cu_seqlens.diff().max())
            starts_at_zero = bool((attention_mask[:, 0] != 0).all())
        return cls(cu_seqlens, longest, token_idx, position, batch, length, starts_at_zero)

    @classmethod
    def unpadded(cls, batch: int, length: int, device: torch.device | str = "cpu") -> PackedBatch:
        """All batch x length tokens are live."""
        index = torch.arange(batch * length, dtype=torch.int32, device=device)
        bounds = torch.arange(batch + 1, dtype=torch.int32, device=device) * length
        longest = length if batch else 0
        return cls(bounds, longest, index, index % max(length, 1), batch, length, length > 0 or batch == 0)

    @property
    def total(self) -> int:
        """T, the number of live tokens, or of rows that there is room for."""
        return self.token_idx.shape[0]

    @property
    def has_padding(self) -> bool:
        """Whether any of the batch x length places is not live."""
        return not self.exact or self.total != self.batch * self.length

    @property
    def lengths(self) -> Tensor:
        """(B,) int32, live tokens of each text."""
        return self.cu_seqlens.diff()

    def select(self, values: Tensor) -> Tensor:
        """The live entries (T, ...) of a (B, L, ...) tensor; differentiable."""
        flat = values.reshape(self.batch * self.length, *values.shape[2:])
        return flat.index_select(0, self.token_idx) if self.has_padding else flat


def first_rows(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    """(B, H): each text's first row of a packed (T, H) tensor, zeros for an empty text; differentiable."""
    starts, live = cu_seqlens[:-1], cu_seqlens.diff() > 0
    if bool(live.all()):
        return x.index_select(0, starts)
    texts = live.nonzero().flatten()
    return x.new_zeros(starts.shape[0], x.shape[1]).index_copy(0, texts, x.index_select(0, starts[texts]))
