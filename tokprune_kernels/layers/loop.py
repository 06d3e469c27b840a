"""The loop over the layers: where tokens are scored, chosen, and leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor

from ..packing import PackedBatch
from ..pruning_config import PruningConfig
from ..reference.attention import square_roots
from .compute import Layer
from .exits import Exits
from .recorder import HiddenStates, Recorder


@dataclass(slots=True)
class Alive:
    """The tokens alive: hidden states x (T, H), their places token_idx (T,), bounds, and which are protected (T,) or None."""

    x: Tensor
    token_idx: Tensor
    cu_seqlens: Tensor
    protected: Tensor | None


@dataclass(frozen=True, slots=True)
class Run:
    """What stays the same through one forward pass.

    recorder: notes what was pruned where, or None.   hidden_states: collects the states in between, or None.
    """

    batch: PackedBatch
    pruning: PruningConfig
    kernels: SimpleNamespace
    exits: Exits
    recorder: Recorder | None = None
    hidden_states: HiddenStates | None = None


def run_layers(run: Run, layers: Sequence[Layer], alive: Alive) -> None:
    """Run the layers over the packed tokens, removing tokens as `run.pruning` says; `alive` is changed to those left."""
    kernels, max_seqlen = run.kernels, run.batch.max_seqlen
    before = run.pruning.position == "before_layer"
    prunes = [run.pruning.prunes_at(index) for index in range(len(layers))]
    # Importance is computed where something reads it: the next layer's decision, or the recorder.
    scored = [run.recorder is not None or (before and reads) for reads in (*prunes[1:], False)]
    fixed = score_denominators(run.pruning, run.batch)
    importance = None

    def through(index: int, layer: Layer, x: Tensor) -> Tensor:
        """The states after one layer, of those that are left."""
        nonlocal importance
        alive.x = x
        q, k, v = layer.qkv(x)
        residual = x
        denominators = square_roots(alive.cu_seqlens) if run.pruning.score_denominator == "sqrt_kept" else fixed
        if prunes[index] and not before:
            context, residual = attend_and_remove(run, index, layer.scale, (q, k, v), denominators, alive)
        elif scored[index]:
            context, importance = kernels.attn_importance(
                q, k, v, alive.cu_seqlens, max_seqlen, layer.scale, denominators
            )
            if run.recorder is not None:
                run.recorder.attended(alive.token_idx, alive.cu_seqlens, importance)
        else:
            context = kernels.varlen_attention(q, k, v, alive.cu_seqlens, max_seqlen, layer.scale)
        return layer.finish(context, residual)

    if run.hidden_states is not None:
        alive.x = run.hidden_states.append(alive.x, alive.token_idx)
    for index, layer in enumerate(layers):
        if before and prunes[index]:
            remove_before(run, index, importance, alive)
        alive.x = layer.run(partial(through, index, layer), alive.x)
        if run.hidden_states is not None:
            alive.x = run.hidden_states.append(alive.x, alive.token_idx)


def remove_before(run: Run, index: int, importance: Tensor, alive: Alive) -> None:
    """Decide at the entry of layer `index` by the last layer's importance, and let the others leave."""
    pruning, kernels = run.pruning, run.kernels
    rule = (importance, alive.cu_seqlens, pruning.values[index], alive.protected, pruning.protect_first)
    if pruning.criterion == "threshold":
        keep_idx, cu_seqlens = kernels.keep_threshold(*rule)
    else:
        keep_idx, cu_seqlens = kernels.keep_topk(*rule, False, pruning.count_first)
    if keep_idx.shape[0] < alive.x.shape[0]:
        run.exits.leave(alive.x, alive.token_idx, keep_idx)
        gather_labels(kernels, alive, keep_idx)
        alive.x = kernels.compact(alive.x, keep_idx, keep_idx.shape[0])
    alive.cu_seqlens = cu_seqlens


def attend_and_remove(
    run: Run, index: int, scale: float, qkv: tuple[Tensor, Tensor, Tensor], denominators: Tensor | None, alive: Alive
) -> tuple[Tensor, Tensor]:
    """Attention of layer `index`, its decision, and the context and residual rows of the tokens that stay."""
    pruning, value = run.pruning, run.pruning.values[index]
    threshold, keep_ratio = (value, None) if pruning.criterion == "threshold" else (None, value)
    context, residual, importance, keep_idx, cu_seqlens = run.kernels.prune_attention(
        *qkv,
        alive.x,
        alive.cu_seqlens,
        run.batch.max_seqlen,
        scale,
        threshold,
        keep_ratio,
        denominators,
        alive.protected,
        pruning.protect_first,
        pruning.count_first,
    )
    if run.recorder is not None:
        run.recorder.attended(alive.token_idx, alive.cu_seqlens, importance)
    if keep_idx.shape[0] < alive.x.shape[0]:
        run.exits.leave(alive.x, alive.token_idx, keep_idx)
        gather_labels(run.kernels, alive, keep_idx)
    alive.cu_seqlens = cu_seqlens
    return context, residual


def gather_labels(kernels: SimpleNamespace, alive: Alive, keep_idx: Tensor) -> None:
    """Keep the places, and which are protected, of the tokens that stay."""
    kept = keep_idx.shape[0]
    alive.token_idx = kernels.compact(alive.token_idx, keep_idx, kept)
    if alive.protected is not None:
        alive.protected = kernels.compact(alive.protected, keep_idx, kept)


def score_denominators(pruning: PruningConfig, batch: PackedBatch) -> Tensor | None:
    """(B,) float32 D of each text by `pruning.score_denominator`, or None where it hangs on the rows alive, in each layer others."""
    if pruning.score_denominator in ("kept", "sqrt_kept"):
        return None
    if pruning.score_denominator == "initial":
        return batch.lengths.clamp(min=1).float()  # an empty text has no scores, but D must be positive
    return torch.full((batch.batch,), float(pruning.score_denominator), device=batch.cu_seqlens.device)
