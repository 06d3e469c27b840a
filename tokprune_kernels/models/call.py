"""What one forward call hands from the model's entry to the encoder and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..layers.recorder import PruningOutput
from ..layers.soft import SoftPruning
from ..layers.whole import WholeEncoder
from ..packing import PackedBatch

if TYPE_CHECKING:
    from .tracing import PaddedBatch

# The keyword argument that carries it: transformers hands unknown ones down to the encoder. So no global and no attribute
# of the model is needed, and concurrent calls cannot mix.
KEYWORD = "tokprune_call"


@dataclass(slots=True)
class Call:
    """The wishes of one call of a model, its batch, and what the encoder gives back besides its output.

    by_head: a model with a head was called; its entry completes the output.
    first_only: of the output only what is read from each text's first live state is wanted.
    survivor_mean: something averages over the last states: those of pruned tokens are to hold the mean of the survivors.
    output_pruning, output_attentions, output_hidden_states (whether, or which): what is wanted besides.
    soft_pruning: weighs tokens in place of removing them (training), or None.
    return_dict: whether the output is wanted as a dict or as a tuple.
    batch, protected ((T,) bool or None): of the packed input, set before the base model runs.
    traced: the call is traced between padded tensors: batch is a PaddedBatch, protected (B, L); see `tracing`.
    whole: the layers of a call without a host sync, found when that was decided; None in other calls.
    hidden_states (num_layers + 1 of (B, L, H)), attentions (num_layers of (B, N_h, L, L)), pruning: set by the encoder if wanted.
    first: (B, H), the states of the texts' first live tokens, where the encoder gives them beside all states.
    """

    by_head: bool = False
    first_only: bool = False
    survivor_mean: bool = False
    output_pruning: bool = False
    output_attentions: bool = False
    output_hidden_states: bool | int | list[int] = False
    soft_pruning: SoftPruning | None = None
    return_dict: bool = True
    batch: PackedBatch | PaddedBatch | None = None
    protected: Tensor | None = None
    traced: bool = False
    whole: WholeEncoder | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    pruning: PruningOutput | None = None
    first: Tensor | None = None
