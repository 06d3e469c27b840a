"""What a pruned run costs, relative to a dense one, as a function of expected lengths: in FLOPs, or in milliseconds."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tokprune_kernels.flops import dense_flops, encoder_flops
from tokprune_kernels.pruning_config import POSITIONS

from ..calibration.latency_table import LatencyTable
from .ragged import mean_over_texts


class FlopsCost:
    """Relative encoder FLOPs: pruned / dense over all texts together, dense at each text's own, unpadded, length.

    So a text counts by its cost, as it does in what a user waits for; ToP averages the ratios of the texts, which on data of short
    training texts and longer test texts holds the constraint on the wrong ones.

    config: has hidden_size, intermediate_size and num_hidden_layers.   position: where in a layer tokens leave,
    "before_layer" or "after_attention".
    """

    def __init__(self, config: Any, position: str):
        self.config, self.position = config, _checked(position)

    def __call__(self, lengths: Tensor, initial: Tensor) -> Tensor:
        """Scalar float64 in [0, 1], differentiable with respect to the lengths; 0 if all texts are empty.

        lengths: (num_layers + 1, B) float, expected tokens; row l in layer l's attention, last row at the end.
        initial: (B,), tokens of each text before any pruning.
        """
        pruned, dense = self.totals(lengths, initial)
        return pruned / dense.clamp(min=1)

    def totals(self, lengths: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        """(pruned, dense) FLOPs of the batch, scalars: what several processes add up before they divide."""
        pruned = encoder_flops(lengths, self.config, position=self.position).sum()
        return pruned, dense_flops(initial, self.config).sum()


class LatencyCost:
    """Relative time of a batch on the machine that a table was measured on: predicted pruned ms / predicted dense ms.

    A layer is given `table.texts` texts of the batch's mean length. What deciding and gathering cost is not in it, nor are
    embeddings and head.

    table: milliseconds of a layer by its tokens.   position: "before_layer" (a whole layer runs on its row of lengths) or
    "after_attention" (all past the attention runs on the next row).
    """

    def __init__(self, table: LatencyTable, position: str):
        self.table, self.position = table, _checked(position)

    def __call__(self, lengths: Tensor, initial: Tensor) -> Tensor:
        """Scalar float64, differentiable with respect to the lengths (num_layers + 1, B); see `FlopsCost`."""
        pruned, dense = self.totals(lengths, initial)
        return pruned / dense

    def totals(self, lengths: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        """(pruned, dense) milliseconds of the batch, scalars.

        Raises ValueError if all texts are empty or the shapes do not fit: there is no length to predict for.
        """
        if lengths.dim() != 2 or lengths.shape[1:] != initial.shape or lengths.shape[0] < 2:
            raise ValueError(
                f"lengths must be (num_layers + 1, B) and initial (B,), got {tuple(lengths.shape)} and {tuple(initial.shape)}"
            )
        present = initial > 0
        if not bool(present.any()):
            raise ValueError("initial must hold a text that is not empty: the relative time of nothing is not defined")
        tokens = self.table.texts * mean_over_texts(lengths.double().T, present)
        attended = tokens[:-1]
        finished = tokens[1:] if self.position == "after_attention" else attended
        pruned = (self.table.attention_at(attended) + self.table.rest_at(finished)).sum()
        dense_tokens = self.table.texts * mean_over_texts(initial.double(), present)
        dense = self.table.attention_at(dense_tokens) + self.table.rest_at(dense_tokens)
        return pruned, len(attended) * dense


def _checked(position: str) -> str:
    if position not in POSITIONS:
        raise ValueError(f"position must be one of {', '.join(map(repr, POSITIONS))}, got {position!r}")
    return position
