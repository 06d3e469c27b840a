"""Layers of a model's shape in the form that the engine runs at inference, whole or part by part."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from tokprune_kernels import ops
from tokprune_kernels.flops import wide_size

# transformers' names of the activations that the kernels have.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
_EPS = 1e-12


class LayerStack:
    """As many layers as the model has, of its sizes and with weights of their own, so that caches hold as little as in it.

    The values are random: time does not depend on them.

    config: has hidden_size, intermediate_size, num_hidden_layers, num_attention_heads and hidden_act, or DistilBERT's names for them.
    dtype: float32 or bfloat16.   Raises ValueError for an activation that the kernels do not have.
    """

    def __init__(self, config: Any, dtype: torch.dtype):
        activation = config.hidden_act if hasattr(config, "hidden_act") else config.activation
        if activation not in ACTIVATIONS:
            raise ValueError(f"hidden_act must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.activation, self.dtype = ACTIVATIONS[activation], dtype
        self.hidden, self.wide, self.heads = config.hidden_size, wide_size(config), config.num_attention_heads
        self.scale = (self.hidden // self.heads) ** -0.5
        self.layers = [self._layer() for _ in range(config.num_hidden_layers)]
        self.weights = [tensor for layer in self.layers for tensor in layer]

    def states(self, tokens: int) -> Tensor:
        """(tokens, H) random states to start from."""
        return torch.randn(tokens, self.hidden, dtype=self.dtype)

    def time_whole(self, x: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> float:
        """Milliseconds a layer, of the whole stack in the one op that inference runs."""
        token_idx = torch.arange(len(x), dtype=torch.int32)
        eps = [_EPS, _EPS] * len(self.layers)
        start = time.perf_counter()
        ops.encoder(
            x,
            cu_seqlens,
            max_seqlen,
            self.weights,
            eps,
            self.heads,
            self.activation,
            self.scale,
            token_idx=token_idx,
            places=len(x),
        )
        return 1e3 * (time.perf_counter() - start) / len(self.layers)

    def time_parts(self, x: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> tuple[float, float]:
        """Milliseconds a layer in (query, key, value and attention) and in (the rest), op by op."""
        attention = rest = 0.0
        for layer in self.layers:
            start = time.perf_counter()
            context = self._attention(layer, x, cu_seqlens, max_seqlen)
            between = time.perf_counter()
            x = self._rest(layer, context, x)
            attention, rest = attention + between - start, rest + time.perf_counter() - between
        return 1e3 * attention / len(self.layers), 1e3 * rest / len(self.layers)

    def _attention(self, layer: tuple[Tensor, ...], x: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> Tensor:
        qkv = ops.packed_linear(x, layer[0], layer[1], 3 * self.hidden)
        q, k, v = qkv.view(len(x), 3, self.heads, self.hidden // self.heads).unbind(1)
        return ops.varlen_attention(q, k, v, cu_seqlens, max_seqlen, self.scale).flatten(1)

    def _rest(self, layer: tuple[Tensor, ...], context: Tensor, residual: Tensor) -> Tensor:
        out, out_bias, norm, norm_bias, up, up_bias, down, down_bias, last, last_bias = layer[2:]
        x = ops.add_layer_norm(ops.packed_linear(context, out, out_bias, self.hidden), residual, norm, norm_bias, _EPS)
        wide = ops.packed_linear(x, up, up_bias, self.wide, self.activation)
        return ops.add_layer_norm(ops.packed_linear(wide, down, down_bias, self.hidden), x, last, last_bias, _EPS)

    def _layer(self) -> tuple[Tensor, ...]:
        """The twelve tensors of `ops.encoder`, in its order."""
        norm = (torch.ones(self.hidden, dtype=self.dtype), torch.zeros(self.hidden, dtype=self.dtype))
        qkv, out = self._linear(self.hidden, 3 * self.hidden), self._linear(self.hidden, self.hidden)
        up, down = self._linear(self.hidden, self.wide), self._linear(self.wide, self.hidden)
        return (*qkv, *out, *norm, *up, *down, *norm)

    def _linear(self, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
        weight = torch.randn(outputs, inputs) * inputs**-0.5
        return ops.pack_weight(weight.to(self.dtype)), torch.zeros(outputs, dtype=self.dtype)
