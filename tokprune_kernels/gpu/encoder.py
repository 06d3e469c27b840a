"""A whole pruned encoder that never asks the device for a number: the launches of one forward pass.

Every buffer has room for all T rows; how many of them count is read by each kernel from the bounds of the sequences, on the
device. So the launches are the same whatever is pruned, and can be queued ahead or captured in a CUDA graph. Rows of the tokens that
leave are not moved: linear layers and LayerNorm read the others through their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import attend
from .gather import gather_into, scatter_into
from .linear import linear_into
from .norm import add_layer_norm_into
from .prune_attention import Decision, Scores, decide


@dataclass(frozen=True, slots=True)
class LayerTensors:
    """Weights and biases of one layer, as torch.nn's modules have them; those of query, key and value joined (3H, H)."""

    qkv: Tensor
    qkv_bias: Tensor
    attention_out: Tensor
    attention_out_bias: Tensor
    norm_attention: Tensor
    norm_attention_bias: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor
    norm_output: Tensor
    norm_output_bias: Tensor


@dataclass(frozen=True, slots=True)
class Rules:
    """What is pruned where, and the numbers that the layers share.

    values: threshold or keep ratio of each layer, () = nothing is pruned.   topk: which of the two.   before_layer: tokens leave
    at a layer's entry, by the importance of the layer before; else right after its attention, by its own.
    eps: two numbers a layer.   activation: code of the ops.   sqrt_rows: scores are divided by the square root of the rows alive
    where no denominators are given, else by their number.   count_first: see the op keep_topk.
    """

    heads: int
    scale: float
    activation: int
    eps: tuple[float, ...]
    values: tuple[float, ...] = ()
    topk: bool = False
    before_layer: bool = False
    protect_first: bool = True
    sqrt_rows: bool = False
    count_first: bool = True

    def rule(self, layer: int, protected: Tensor | None) -> tuple:
        """What `decide` asks beside the scores: threshold and keep ratio, one of them None, and who stays in any case."""
        value = self.values[layer]
        threshold, keep_ratio = (None, value) if self.topk else (value, None)
        return threshold, keep_ratio, protected, self.protect_first, self.count_first

    def prunes(self, layer: int) -> bool:
        """Whether tokens may leave at this layer."""
        return bool(self.values) and (self.values[layer] < 1.0 if self.topk else self.values[layer] > 0.0)


@dataclass(slots=True)
class Alive:
    """Rows x (T, H) of which those that `index` numbers count, as many as cu_seqlens ends at; None: the first ones, in order.

    token_idx: (T,) places of the rows that count, in their order.
    """

    x: Tensor
    cu_seqlens: Tensor
    token_idx: Tensor
    protected: Tensor | None
    index: Tensor | None = None

    @property
    def count(self) -> Tensor:
        """(1,) int32, on the device."""
        return self.cu_seqlens[-1:]


def run_encoder(
    layers: Sequence[LayerTensors],
    rules: Rules,
    x: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    token_idx: Tensor,
    out: Tensor,
    denominators: Tensor | None = None,
    protected: Tensor | None = None,
) -> None:
    """Write every token's last state to its place, out[token_idx[i]]; no host sync.

    Args:
        layers: one LayerTensors each.
        x: (T, H) float32, bfloat16 or float16, of which cu_seqlens[-1] rows count.   cu_seqlens: (B + 1,) int32.
        max_seqlen: no sequence is longer.   token_idx: (T,) int32, rows of out.
        out: (places, H), changed in place; the rows that no token has are left alone.
        denominators: (B,) float32 or None.   protected: (T,) bool or None.
    """
    if not (x.shape[0] and max_seqlen):
        return
    alive, scores = Alive(x, cu_seqlens, token_idx, protected), None
    for number, layer in enumerate(layers):
        if rules.before_layer and rules.prunes(number):
            remove(alive, out, decide(scores, alive.cu_seqlens, *rules.rule(number, alive.protected)))
        scores = run_layer(layer, rules, number, alive, max_seqlen, out, denominators)
    scatter_into(out, alive.x, alive.token_idx, alive.count)


def run_layer(
    layer: LayerTensors, rules: Rules, number: int, alive: Alive, max_seqlen: int, out: Tensor, denominators: Tensor | None
) -> Scores | None:
    """One layer on the rows alive; returns what the next one's decision reads, if it will read anything."""
    rows, hidden = alive.x.shape
    new = alive.x.new_empty
    qkv = new(rows, 3 * hidden)
    linear_into(qkv, alive.x, layer.qkv, layer.qkv_bias, count=alive.count, index=alive.index)
    q, k, v = qkv.unflatten(1, (3, rules.heads, hidden // rules.heads)).unbind(1)
    decides = rules.prunes(number) and not rules.before_layer
    reads = rules.before_layer and number + 1 < len(rules.values) and rules.prunes(number + 1)
    context, partials = attend(q, k, v, alive.cu_seqlens, max_seqlen, rules.scale, importance=decides or reads)
    scores, stay = None, None  # stay: the context rows of the tokens that do
    if partials is not None:
        if rules.sqrt_rows and denominators is None:  # of the rows alive, 1 for a sequence that has none
            denominators = alive.cu_seqlens.diff().clamp(min=1).float().sqrt()
        scores = Scores(partials, denominators)
    if decides:
        decided = decide(scores, alive.cu_seqlens, *rules.rule(number, alive.protected))
        remove(alive, out, decided)
        stay = decided.keep_idx
    attended, x, wide, down = new(rows, hidden), new(rows, hidden), new(rows, layer.up.shape[0]), new(rows, hidden)
    first_eps, second_eps = rules.eps[2 * number : 2 * number + 2]
    linear_into(attended, context.flatten(1), layer.attention_out, layer.attention_out_bias, count=alive.count, index=stay)
    add_layer_norm_into(
        x, attended, alive.x, layer.norm_attention, layer.norm_attention_bias, first_eps, alive.count, alive.index
    )
    linear_into(wide, x, layer.up, layer.up_bias, rules.activation, count=alive.count)
    linear_into(down, wide, layer.down, layer.down_bias, count=alive.count)
    add_layer_norm_into(attended, down, x, layer.norm_output, layer.norm_output_bias, second_eps, alive.count)
    alive.x, alive.index = attended, None
    return scores


def remove(alive: Alive, out: Tensor, decided: Decision) -> None:
    """The rows that do not stay write their state to its place; from here on `alive` numbers those that do."""
    scatter_into(out, alive.x, alive.token_idx, alive.count, decided.flags)
    count = decided.cu_seqlens[-1:]
    alive.token_idx = _gathered(alive.token_idx, decided.keep_idx, count)
    if alive.protected is not None:
        alive.protected = _gathered(alive.protected, decided.keep_idx, count)
    alive.cu_seqlens, alive.index = decided.cu_seqlens, decided.keep_idx


def _gathered(x: Tensor, index: Tensor, count: Tensor) -> Tensor:
    out = torch.empty_like(x)
    gather_into(out, x, index, count)
    return out
