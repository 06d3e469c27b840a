"""One layer with its weights packed, part by part, where a part is nothing but its class's arithmetic.

What is not a plain, unhooked nn.Linear or nn.LayerNorm (LoRA-wrapped, quantised, parametrised, ...) is called as the
module it is, never bypassed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from ..reference.linear import ACTIVATIONS
from .compute import Layer, module_layer
from .modules import LayerModules

# Activations of the feed-forward part that are computed at a time: half of a usual last-level cache.
FEED_FORWARD_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class PackedPart:
    """One linear layer, or several side by side, packed as one: weight as `pack_weight` makes it, bias (N,)."""

    weight: Tensor
    bias: Tensor
    out_features: int

    def bind(self, kernels: SimpleNamespace, activation: int = 0) -> Callable[[Tensor], Tensor]:
        """x (T, K) -> activation(x W^T + b) (T, N)."""
        op, weight, bias, out_features = kernels.packed_linear, self.weight, self.bias, self.out_features
        return lambda x: op(x, weight, bias, out_features, activation)


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """A layer as the Python loop runs it, and the tensors and numbers that the `encoder` op needs of it.

    weights: in the op's order, eps: of the two LayerNorms; both None unless every part is packed.
    """

    layer: Layer
    weights: tuple[Tensor, ...] | None
    eps: tuple[float, float] | None


def pack_layer(modules: LayerModules, kernels: SimpleNamespace, is_plain: Callable[[nn.Module], bool]) -> PackedLayer:
    """The layer with every part packed that can be; is_plain says of a module whether calling it may be left out."""

    def linear(*parts: nn.Module, dropout: nn.Module | None = None) -> PackedPart | None:
        dropped = dropout is not None and dropout.training
        packable = not dropped and all(type(part) is nn.Linear and is_plain(part) for part in parts)
        return _pack(parts, kernels) if packable else None

    qkv = linear(modules.query, modules.key, modules.value)
    attention_out = linear(modules.attention_out, dropout=modules.dropout_attention)
    up, down = linear(modules.up), linear(modules.down, dropout=modules.dropout_output)
    norms = [norm if _fusable(norm) and is_plain(norm) else None for norm in (modules.norm_attention, modules.norm_output)]

    parts = {}
    if qkv is not None:
        parts["qkv"] = _split(qkv.bind(kernels), modules.heads, modules.head_dim)
    if attention_out is not None:
        parts["attention_out"] = attention_out.bind(kernels)
    if up is not None:
        parts["up"] = _activated(up, modules, kernels)
    if down is not None:
        parts["down"] = down.bind(kernels)
    if up is not None and down is not None:
        parts["block_rows"] = max(FEED_FORWARD_BYTES // (up.out_features * up.bias.element_size()), 1)
    for name, norm in zip(("norm_attention", "norm_output"), norms):
        if norm is not None:
            parts[name] = _fused_norm(norm, kernels)
    layer = replace(module_layer(modules), **parts)

    whole = (qkv, attention_out, norms[0], up, down, norms[1])
    if any(part is None for part in whole) or modules.activation_name is None:
        return PackedLayer(layer, None, None)
    return PackedLayer(layer, tuple(t for p in whole for t in (p.weight, p.bias)), (norms[0].eps, norms[1].eps))


def _pack(parts: tuple[nn.Linear, ...], kernels: SimpleNamespace) -> PackedPart:
    weight = kernels.pack_weight(torch.cat([part.weight for part in parts]))
    bias = torch.cat([part.weight.new_zeros(part.out_features) if part.bias is None else part.bias for part in parts])
    return PackedPart(weight, bias, sum(part.out_features for part in parts))


def _fusable(module: nn.Module) -> bool:
    return (
        type(module) is nn.LayerNorm
        and module.weight is not None
        and module.bias is not None
        and module.weight.dim() == 1
    )


def _split(project: Callable[[Tensor], Tensor], heads: int, head_dim: int) -> Callable:
    return lambda x: project(x).view(x.shape[0], 3, heads, head_dim).unbind(1)


def _activated(up: PackedPart, modules: LayerModules, kernels: SimpleNamespace) -> Callable[[Tensor], Tensor]:
    if modules.activation_name is not None:
        return up.bind(kernels, ACTIVATIONS[modules.activation_name])
    project, activation = up.bind(kernels), modules.activation
    return lambda x: activation(project(x))


def _fused_norm(module: nn.LayerNorm, kernels: SimpleNamespace) -> Callable:
    op, weight, bias, eps = kernels.add_layer_norm, module.weight, module.bias, module.eps
    return lambda x, residual: op(x, residual, weight, bias, eps)
