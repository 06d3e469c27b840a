"""Soft pruning, for training: every token stays and is computed, but counts less; in the limit it is real removal.

A pruner gives each token a weight in [0, 1]. In the layers after that decision it multiplies the token's share as a key in
every softmax, and its share as a row in the importance of the others. Weight 0 is removal: the tokens of weight 1 then get
the very outputs and scores that they get when the others are gone. The papers' own training multiplies hidden states instead
(`masks="hidden"`): the output of each layer, once, by the weights given there and not by those before, which it has been
multiplied by already. A token then still takes part in attention; a model trained so changes when its tokens are removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from ..pruning_config import DENOMINATORS, DENOMINATORS_SAID
from .compute import Layer
from .loop import Alive, Run, score_denominators

MASKS = ("attention", "hidden")
# exp(log of it) is far below what float32 resolves beside 1, and its logarithm is finite.
_SMALLEST_WEIGHT = 1e-12


class SoftPruning(Protocol):
    """What `model(..., soft_pruning=...)` takes: called once a layer, in order, after its attention.

    masks: "attention" or "hidden", see the module.   score_denominator: as in PruningConfig.

    Called with the layer (from 0), the tokens' importance there (T,), the weights that it gave last (T,), ones at first, and
    cu_seqlens (B + 1,) it returns weights (T,): with masks "attention" those that hold from here on, with "hidden" what this layer's
    output is multiplied by; None leaves everything as it is. All differentiable. The last layer's change nothing but what the
    pruner itself counts, and with "hidden" the result.
    """

    masks: str
    score_denominator: str | int

    def __call__(self, layer: int, importance: Tensor, weights: Tensor, cu_seqlens: Tensor) -> Tensor | None: ...


def check_soft_pruning(soft: SoftPruning) -> None:
    """Raise ValueError or TypeError unless it can be called for."""
    if not callable(soft):
        raise TypeError(f"soft_pruning must be callable as SoftPruning describes, got {soft!r}")
    if getattr(soft, "masks", None) not in MASKS:
        raise ValueError(f"soft_pruning.masks must be one of {', '.join(map(repr, MASKS))}, got {getattr(soft, 'masks', None)!r}")
    denominator = getattr(soft, "score_denominator", None)
    number = isinstance(denominator, int) and not isinstance(denominator, bool) and denominator > 0
    if denominator not in DENOMINATORS and not number:
        raise ValueError(f"soft_pruning.score_denominator must be {DENOMINATORS_SAID}, got {denominator!r}")


def run_soft_layers(run: Run, layers: Sequence[Layer], alive: Alive, soft: SoftPruning) -> None:
    """Run the layers over all packed tokens, weighing them as `soft` says; `alive.x` is changed to the last layer's output."""
    cu_seqlens, lengths = alive.cu_seqlens, run.batch.lengths.long()
    texts = torch.repeat_interleave(torch.arange(run.batch.batch, device=lengths.device), lengths)
    ones = torch.ones(run.batch.batch, device=lengths.device)
    weights = torch.ones(run.batch.total, device=lengths.device)
    in_attention = soft.masks == "attention"
    fixed = score_denominators(soft, run.batch)
    if run.hidden_states is not None:
        alive.x = run.hidden_states.append(alive.x, alive.token_idx)
    received = None

    def through(index: int, layer: Layer, x: Tensor) -> Tensor:
        """The states after one layer."""
        nonlocal received
        q, k, v = layer.qkv(x)
        counted = {}
        if in_attention and index:  # nothing has been weighed before layer 0
            counted = {"key_bias": weights.clamp(min=_SMALLEST_WEIGHT).log(), "row_weights": weights}
        context, received = run.kernels.attn_importance(
            q, k, v, cu_seqlens, run.batch.max_seqlen, layer.scale, ones, **counted
        )
        return layer.finish(context, x)

    for index, layer in enumerate(layers):
        denominators = fixed
        if fixed is None:
            denominators = _weighted_rows(weights if in_attention else torch.ones_like(weights), texts, run.batch.batch)
            if soft.score_denominator == "sqrt_kept":
                denominators = denominators.sqrt()
        alive.x = layer.run(partial(through, index, layer), alive.x)
        changed = soft(index, received / denominators[texts], weights, cu_seqlens)
        if changed is not None:
            if changed.shape != weights.shape:
                raise ValueError(
                    f"soft_pruning must return one weight for each token, shape {tuple(weights.shape)}, or None; it returned "
                    f"shape {tuple(changed.shape)} after layer {index}"
                )
            if not in_attention:
                alive.x = alive.x * changed[:, None].to(alive.x.dtype)
            weights = changed
        if run.hidden_states is not None:
            alive.x = run.hidden_states.append(alive.x, alive.token_idx)


def _weighted_rows(weights: Tensor, texts: Tensor, batch: int) -> Tensor:
    """(B,) D of each text when every row counts by its weight."""
    # At least something: where no row counts nothing is received, and 0 / 0 would be NaN.
    return weights.new_zeros(batch).index_add(0, texts, weights).clamp(min=_SMALLEST_WEIGHT)
