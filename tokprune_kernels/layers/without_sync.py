"""Inference on a GPU that never waits for it: buffers with room for every token, and one CUDA graph for each size of batch.

The host does not know how many tokens are live or stay; the kernels read it from the device. What is recorded serves all batches
of its size, whatever their lengths and however much is pruned.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from .._gpu import has_triton
from ..ops.needs import MASKS
from ..packing import PackedBatch
from ..pruning_config import PruningConfig
from .loop import score_denominators
from .whole import WholeEncoder

MODES = ("auto", "exact", "graph")
# In "auto" batches of up to so many places (texts x padded length) take a graph. In larger ones the launches are hidden behind the
# kernels anyway. Measured on an H100 with BERT-base: dense at 16k places both take the same time, and at 32k library products are
# 10% ahead; pruned the graph, in which nobody waits to learn how many tokens stay, is twice as fast at 32k and level at 131k.
GRAPH_PLACES_DENSE, GRAPH_PLACES_PRUNED = 16384, 65536
# Lengths are rounded up to these, so that few graphs serve all lengths.
LENGTH_STEP = 32


def available(device: torch.device) -> bool:
    """Whether batches on this device can run so."""
    return device.type == "cuda" and has_triton()


def capacity_batch(attention_mask: Tensor) -> PackedBatch:
    """A (B, L) mask as a packed batch of rows for B texts of L tokens, L rounded up, of which cu_seqlens[-1] count: no host sync.

    Rows past the count repeat the first place. `max_seqlen` is L, the one bound that the host knows.
    """
    from ..gpu.gather import pack_index_with_room

    batch, length = attention_mask.shape
    mask = attention_mask if attention_mask.dtype in MASKS else attention_mask != 0
    token_idx, cu_seqlens, position = pack_index_with_room(mask.contiguous(), batch * _rounded(length))
    return PackedBatch(cu_seqlens, length, token_idx, position, batch, length, starts_at_zero=False, exact=False)


def _rounded(length: int) -> int:
    return -(-length // LENGTH_STEP) * LENGTH_STEP


class GraphEncoder:
    """Runs whole encoders over capacity batches through a bounded cache of CUDA graphs; copies and pickles are empty."""

    def __init__(self) -> None:
        self._graphs = None  # made by the first run, which imports triton
        self._whole: WholeEncoder | None = None
        self._making = threading.Lock()

    def __reduce__(self):
        return GraphEncoder, ()

    def clear(self) -> None:
        """Give up the graphs and their weights."""
        with self._making:
            self._whole = None
            if self._graphs is not None:
                self._graphs.clear()

    def run(
        self, whole: WholeEncoder, x: Tensor, batch: PackedBatch, pruning: PruningConfig, protected: Tensor | None,
        first_only: bool,
    ) -> tuple[Tensor | None, Tensor]:  # fmt: skip
        """Embedded x (T, H) -> the restored (B, L, H), None with first_only; and each text's first token alone (B, H), zeros without one."""
        from ..gpu.encoder import LayerTensors, Rules, run_encoder
        from ..gpu.graphs import GraphCache

        with self._making:
            if self._graphs is None:
                self._graphs = GraphCache()
            if whole is not self._whole:  # graphs of weights that have changed since will not be asked for again
                self._graphs.clear()
                self._whole = whole
        values = () if pruning.is_dense else tuple(pruning.values)
        rules = Rules(
            whole.heads, whole.scale, whole.activation, tuple(whole.eps), values, pruning.criterion == "topk",
            pruning.position == "before_layer", pruning.protect_first, pruning.score_denominator == "sqrt_kept",
            pruning.count_first,
        )  # fmt: skip
        longest, room = _rounded(batch.length), x.shape[0]
        optional = {"denominators": score_denominators(pruning, batch) if values else None, "protected": protected}
        names = [name for name, value in optional.items() if value is not None]

        def forward(x: Tensor, cu_seqlens: Tensor, token_idx: Tensor, *given: Tensor) -> Tensor:
            """The room's states and behind them the first tokens', or those alone: recorded too, they cost the host nothing."""
            layers = [LayerTensors(*whole.weights[at : at + 12]) for at in range(0, len(whole.weights), 12)]
            out = x.new_zeros(room + batch.batch, x.shape[1])
            states, firsts = out.split((room, batch.batch))
            run_encoder(layers, rules, x, cu_seqlens, longest, token_idx, states, **dict(zip(names, given, strict=True)))
            # The last text's start may lie past all rows; what an empty text has there is another's.
            places = token_idx.index_select(0, cu_seqlens[:-1].clamp(max=room - 1))
            torch.mul(states.index_select(0, places), (cu_seqlens.diff() > 0)[:, None], out=firsts)
            return firsts if first_only else out

        key = (whole, rules, longest, tuple(names), first_only)
        inputs = (x, batch.cu_seqlens, batch.token_idx, *(optional[name] for name in names))
        out = self._graphs.run(key, forward, inputs)
        states = None if first_only else out[: batch.batch * batch.length].view(batch.batch, batch.length, -1)
        return states, out[-batch.batch :]
