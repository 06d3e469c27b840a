"""The whole stack of layers as one op, for inference: nothing of Python between the layers, no memory but the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..ops.padded_encoder import denominator_code
from ..packing import PackedBatch
from ..pruning_config import PruningConfig
from ..reference.encoder import READOUTS
from ..reference.linear import ACTIVATIONS
from .kernels import OPS
from .loop import score_denominators
from .modules import LayerModules
from .packed_layer import PackedLayer


@dataclass(frozen=True, slots=True, eq=False)
class WholeEncoder:
    """What the `encoder` op needs of the layers: their packed tensors in its order, and the numbers that they share."""

    weights: list[Tensor]
    eps: list[float]
    heads: int
    activation: int
    scale: float

    @classmethod
    def of(cls, layers: Sequence[PackedLayer], modules: Sequence[LayerModules]) -> WholeEncoder | None:
        """The layers as one, or None if a part of one is not packed or they are of different kinds."""
        kinds = {(m.heads, m.head_dim, m.activation_name, m.scale) for m in modules}
        if len(kinds) != 1 or any(layer.weights is None for layer in layers):
            return None
        heads, _, activation, scale = kinds.pop()
        weights = [tensor for layer in layers for tensor in layer.weights]
        return cls(weights, [eps for layer in layers for eps in layer.eps], heads, ACTIVATIONS[activation], scale)

    def run(
        self, x: Tensor, batch: PackedBatch, pruning: PruningConfig, protected: Tensor | None, first_only: bool, means: bool = False
    ) -> Tensor:
        """Packed x (T, H) -> the restored (B, L, H), or with first_only (B, H), each text's first token alone.

        means: restored are the survivors' means in place of exit states.
        """
        keep = [] if pruning.is_dense else pruning.values
        out = OPS.encoder(
            x,
            batch.cu_seqlens,
            batch.max_seqlen,
            self.weights,
            self.eps,
            self.heads,
            self.activation,
            self.scale,
            keep,
            pruning.criterion == "topk",
            pruning.position == "before_layer",
            score_denominators(pruning, batch) if keep else None,
            protected,
            pruning.protect_first,
            _readout(pruning, first_only, means),
            None if first_only else batch.token_idx,
            batch.batch * batch.length,
            pruning.score_denominator == "sqrt_kept",
            pruning.count_first,
        )
        return out if first_only else out.view(batch.batch, batch.length, x.shape[1])

    def run_padded(
        self, x: Tensor, mask: Tensor, pruning: PruningConfig, protected: Tensor | None, first_only: bool, means: bool
    ) -> Tensor:
        """As `run`, of padded x (B, L, H), mask (B, L) and protected (B, L)."""
        return OPS.padded_encoder(
            x,
            mask,
            self.weights,
            self.eps,
            self.heads,
            self.activation,
            self.scale,
            [] if pruning.is_dense else list(pruning.values),
            pruning.criterion == "topk",
            pruning.position == "before_layer",
            denominator_code(pruning.score_denominator),
            protected,
            pruning.protect_first,
            _readout(pruning, first_only, means),
            pruning.count_first,
        )


def _readout(pruning: PruningConfig, first_only: bool, means: bool) -> int:
    if not first_only:
        return READOUTS["survivor_mean" if means else "all"]
    return READOUTS["first_only" if pruning.exact_last_layer else "first"]
