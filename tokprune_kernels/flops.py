"""FLOPs of the encoder, as the papers count them: 2 x multiply-accumulates of projections, attention and feed-forward.

Embeddings, LayerNorm, softmax and head are left out. Per layer, with d the hidden and f the feed-forward size, n tokens in
the attention and m after it:

    MACs = 2 d n^2  (scores, context)  +  3 d^2 n  (query, key, value)  +  d^2 m  (output projection)  +  2 d f m

LTP (Kim et al., KDD 2022) counts the output projection at n, f = 4 d: 2 d n^2 + 4 d^2 n + 8 d^2 m. Here it is counted where it
runs, on the survivors. ToP (Li et al., KDD 2023) also counts MACs against *unpadded* lengths; but the speed-ups it reports
are against inputs padded to the task's maximum, so they are the product of a padding factor and a pruning factor. Keep the
two apart: `dense_flops` gives each baseline.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .pruning_config import POSITIONS


def encoder_flops(
    kept_lengths: Tensor, config: Any, *, position: str | None = None, exact_last_layer: bool = False
) -> Tensor:
    """FLOPs of each sequence in a pruned run.

    Args:
        kept_lengths: (num_layers + 1, B) integers, as `out.pruning.kept_lengths`: row l = tokens in layer l's attention, last
            row = alive at the end. Floats are expected lengths, as in training: the FLOPs of exactly that many tokens,
            fractions included, differentiable with respect to them.
        config: has hidden_size, intermediate_size (or DistilBERT's hidden_dim) and num_hidden_layers, as a transformers BertConfig.
        position: "after_attention" (the rest of layer l runs on row l + 1) or "before_layer" (on row l); None: that of
            config.pruning if it has one, else "after_attention".
        exact_last_layer: the last layer computes the first token's row alone, from the keys and values of all: what runs
            under a head that reads only that (PruningConfig.exact_last_layer). No gain of pruning: never mix the two.

    Returns:
        (B,) float64 FLOPs (2 x MACs).

    Raises:
        TypeError: kept_lengths is no tensor.   ValueError: its shape does not fit the config, or an unknown position.
    """
    if not isinstance(kept_lengths, Tensor):
        raise TypeError(f"kept_lengths must be a torch.Tensor, got {type(kept_lengths).__name__}")
    layers = config.num_hidden_layers
    if kept_lengths.dim() != 2 or kept_lengths.shape[0] != layers + 1:
        raise ValueError(
            f"kept_lengths must be (num_layers + 1, B) = ({layers + 1}, B), got shape {tuple(kept_lengths.shape)}"
        )
    position = _position(config) if position is None else position
    if position not in POSITIONS:
        raise ValueError(f"position must be one of {', '.join(map(repr, POSITIONS))}, got {position!r}")
    attended = kept_lengths[:-1].double()
    finished = kept_lengths[1:].double() if position == "after_attention" else attended
    flops = _layer_flops(attended, finished, config)
    if exact_last_layer:
        flops[-1] = _first_row_flops(attended[-1], config)
    return flops.sum(dim=0)


def dense_flops(lengths: Tensor, config: Any, padded_to: str | int | None = None) -> Tensor:
    """FLOPs of each sequence when nothing is pruned: the baselines that a speed-up is reported against.

    Args:
        lengths: (B,) integers, tokens of each text.
        config: as in `encoder_flops`.
        padded_to: None: packed, no padding; "longest": every text padded to the longest of these; an int: to that length, as
            ToP does with the task's maximum.

    Returns:
        (B,) float64 FLOPs (2 x MACs).

    Raises:
        TypeError: lengths is no tensor.   ValueError: its shape, or a padded_to that is unknown or shorter than a text.
    """
    if not isinstance(lengths, Tensor):
        raise TypeError(f"lengths must be a torch.Tensor, got {type(lengths).__name__}")
    if lengths.dim() != 1:
        raise ValueError(f"lengths must be (B,), got shape {tuple(lengths.shape)}")
    padded = _padded(lengths, padded_to).double()
    return _layer_flops(padded, padded, config) * config.num_hidden_layers


def wide_size(config: Any) -> int:
    """The width between the two products of a layer's feed-forward part, which DistilBERT calls hidden_dim."""
    return config.intermediate_size if hasattr(config, "intermediate_size") else config.hidden_dim


def _layer_flops(attended: Tensor, finished: Tensor, config: Any) -> Tensor:
    d, f = config.hidden_size, wide_size(config)
    macs = 2 * d * attended**2 + 3 * d**2 * attended + (d**2 + 2 * d * f) * finished
    return 2 * macs


def _first_row_flops(attended: Tensor, config: Any) -> Tensor:
    d, f, rows = config.hidden_size, wide_size(config), (attended > 0).double()
    macs = 2 * d * attended + 2 * d**2 * attended + (2 * d**2 + 2 * d * f) * rows
    return 2 * macs


def _position(config: Any) -> str:
    pruning = getattr(config, "pruning", None) or {}
    return pruning.get("position", POSITIONS[0]) if isinstance(pruning, dict) else pruning.position


def _padded(lengths: Tensor, padded_to: str | int | None) -> Tensor:
    if padded_to is None or not len(lengths):
        return lengths
    longest = int(lengths.max())
    if padded_to == "longest":
        return torch.full_like(lengths, longest)
    if isinstance(padded_to, bool) or not isinstance(padded_to, int):
        raise ValueError(f"padded_to must be None, 'longest' or a length, got {padded_to!r}")
    if padded_to < longest:
        raise ValueError(f"padded_to must not be shorter than the longest text, {longest}, got {padded_to}")
    return torch.full_like(lengths, padded_to)
