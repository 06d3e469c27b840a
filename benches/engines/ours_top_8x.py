"""Ours at ToP's published operating point: 8.1x fewer FLOPs than dense padded to the task's maximum length.

Padding saved and tokens saved are one number there, so it is compared where the others do pad to that length.
"""

import torch

import tokprune_kernels as tk

from .pruned import keep_ratios, pruned

REDUCTION = 8.1


def stronger(ratios: list[float], strength: float) -> list[float]:
    """The ratios with `strength` times as large a share dropped at each layer; at least 1% stays."""
    return [max(0.01, 1 - strength * (1 - ratio)) for ratio in ratios]


def kept_lengths(ratios: list[float], lengths: torch.Tensor) -> torch.Tensor:
    """(layers + 1, B) tokens alive, as `PruningConfig.top(ratios)` leaves them of texts with `lengths` (B,) tokens."""
    rows = [lengths]
    for ratio in ratios:
        rows.append((ratio * rows[-1].double() - 1e-9).ceil().long().clamp(min=1))
    return torch.stack(rows[1:] + rows[-1:])  # before_layer: what is dropped at a layer is not in its attention


def reduction(ratios: list[float], lengths: torch.Tensor, config, padded_to: int) -> float:
    """FLOPs of dense padded to `padded_to` over those that are left."""
    padded = tk.flops.dense_flops(lengths, config, padded_to=padded_to).sum()
    left = tk.flops.encoder_flops(kept_lengths(ratios, lengths), config, position="before_layer").sum()
    return float(padded / left)


def ratios_for(wanted: float, ratios: list[float], lengths: torch.Tensor, config, padded_to: int) -> list[float]:
    """The weakest `stronger` ratios that reach the wanted reduction, by bisection. Raises ValueError if none do."""
    low, high = 0.0, 1 / (1 - min(ratios))
    if reduction(stronger(ratios, high), lengths, config, padded_to) < wanted:
        raise ValueError(f"no strength of the keep ratios reaches a reduction of {wanted:g}x")
    while high - low > 1e-6:
        middle = (low + high) / 2
        reached = reduction(stronger(ratios, middle), lengths, config, padded_to) >= wanted
        low, high = (low, middle) if reached else (middle, high)
    return stronger(ratios, high)


def choose(model, workload):
    ratios = keep_ratios(model.config.num_hidden_layers)
    return tk.PruningConfig.top(ratios_for(REDUCTION, ratios, workload.lengths, model.config, workload.padded_to))


ENGINE = pruned("ours_top_8x", choose, at_padded_task=True)
