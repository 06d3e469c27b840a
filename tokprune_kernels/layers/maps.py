"""Attention through whole maps, for who asks to see them: slow, and the only path that forms them."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from ..packing import PackedBatch
from .loop import Alive


class AttentionMaps:
    """Stands for the attention ops in the loop over the layers, and keeps each layer's map (B, N_h, L, L).

    Maps are at the input's own places; rows and columns of padding and of tokens that have left are zero. The context is made of
    them, so that they have a gradient where there is one. All else is left to `kernels`.

    alive: the loop's, which says where the tokens of a layer belong.
    """

    def __init__(self, batch: PackedBatch, kernels: SimpleNamespace, alive: Alive):
        self.batch, self.kernels, self.alive = batch, kernels, alive
        self.maps: list[Tensor] = []

    def __getattr__(self, name: str):
        return getattr(self.kernels, name)

    def attn_importance(
        self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, scale: float,
        denominators: Tensor | None = None, key_bias: Tensor | None = None, row_weights: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """As `ops.attn_importance`, on the tokens alive."""
        places = self.alive.token_idx.long()
        batch, length = self.batch.batch, self.batch.length
        live = torch.zeros(batch * length, dtype=torch.bool, device=q.device)
        live[places] = True
        live = live.view(batch, length)
        query, key, value = (self._padded(x, places) for x in (q, k, v))

        # A row without a live key would be NaN: padding attends to everything, and is zeroed after.
        masked = ~live & live.any(dim=1, keepdim=True)
        scores = (query @ key.transpose(2, 3)).to(torch.promote_types(q.dtype, torch.float32)) * scale
        if key_bias is not None:
            scores = scores + self._padded(key_bias[:, None, None], places)[:, :, None, :, 0]
        probabilities = scores.masked_fill(masked[:, None, None, :], float("-inf")).softmax(dim=-1)
        probabilities = probabilities * (live[:, None, :, None] & live[:, None, None, :])
        maps = probabilities.to(q.dtype)
        self.maps.append(maps)

        context = (maps @ value).transpose(1, 2).flatten(0, 1).index_select(0, places)
        rows = probabilities if row_weights is None else probabilities * self._padded(row_weights[:, None, None], places)
        received = rows.sum(dim=(1, 2)).flatten().index_select(0, places) / q.shape[1]
        texts = torch.div(places, length, rounding_mode="floor")
        divisor = cu_seqlens.diff() if denominators is None else denominators
        return context, received / divisor.to(received.dtype)[texts]

    def varlen_attention(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, max_seqlen: int, scale: float) -> Tensor:
        """As `ops.varlen_attention`, on the tokens alive."""
        return self.attn_importance(q, k, v, cu_seqlens, max_seqlen, scale)[0]

    def prune_attention(
        self, q: Tensor, k: Tensor, v: Tensor, residual: Tensor, cu_seqlens: Tensor, max_seqlen: int, scale: float,
        threshold: float | None, keep_ratio: float | None, denominators: Tensor | None, protected: Tensor | None, protect_first: bool,
        count_first: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """As `ops.prune_attention`, on the tokens alive."""
        context, importance = self.attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators)
        scores = importance.detach()
        if threshold is None:
            keep_idx, bounds = self.keep_topk(scores, cu_seqlens, keep_ratio, protected, protect_first, count_first=count_first)
        else:
            keep_idx, bounds = self.keep_threshold(scores, cu_seqlens, threshold, protected, protect_first)
        return context.index_select(0, keep_idx), residual.index_select(0, keep_idx), importance, keep_idx, bounds

    def _padded(self, x: Tensor, places: Tensor) -> Tensor:
        """(T, N, d) -> (B, N, L, d), zeros where no token is alive."""
        flat = x.new_zeros(self.batch.batch * self.batch.length, *x.shape[1:]).index_copy(0, places, x)
        return flat.view(self.batch.batch, self.batch.length, *x.shape[1:]).transpose(1, 2)
