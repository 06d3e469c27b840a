"""The importance that a dense model gives the tokens of real texts: where thresholds start."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import tokprune_kernels as tk

from ..data.encoding import Collator
from ..running import outputs


def sample_scores(
    model: nn.Module, rows: Sequence[dict], collator: Collator, score_denominator: str | int = "kept", batch_size: int = 32
) -> Tensor:
    """(num_layers, T) importance of all tokens but each text's first, on the rows given, longest texts first, with nothing pruned."""
    pruning = tk.PruningConfig.from_dict(model.config.pruning)
    model.set_pruning(tk.PruningConfig(score_denominator=score_denominator))
    scores = []
    for _, output in outputs(model, rows, collator, batch_size, output_pruning=True):
        pruned = output["pruning"]
        scored = pruned.kept_mask[0].clone()
        scored[:, 0] = False
        scores.append(pruned.importance[:, scored].cpu())
    model.set_pruning(pruning)
    return torch.cat(scores, dim=1)


def quantile_line(scores: Tensor, final: float) -> list[float]:
    """Thresholds that rise with the depth: layer l of n starts at the quantile final * (l + 1) / n of its own scores.

    scores: (num_layers, T).   final: share of the tokens that the last layer's threshold lies above, in [0, 1).
    Raises ValueError for another share, or if there are no tokens.
    """
    if not 0 <= final < 1:
        raise ValueError(f"final must be a share of the tokens in [0, 1), got {final}")
    if not scores.numel():
        raise ValueError("there are no tokens to take scores of: the texts hold nothing but their first token")
    layers = len(scores)
    return [float(torch.quantile(row, final * (layer + 1) / layers)) for layer, row in enumerate(scores)]
