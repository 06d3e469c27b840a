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

from ..reference.linear import ACTIVATIONS, unpack_weight
from .compute import Layer, module_layer
from .modules import LayerModules

# Activations of the feed-forward part that are computed at a time: half of a usual last-level cache.
FEED_FORWARD_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class PackedPart:
    """One linear layer, or several side by side, packed as one.

    modules: the linear layers.   rows, columns: of their weights.   weight: as `pack_weight` makes it.
    bias: (N,), of a single module its own, read where it is; of several a copy.
    """

    modules: tuple[nn.Linear, ...]
    rows: tuple[int, ...]
    columns: int
    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, modules: tuple[nn.Linear, ...], kernels: SimpleNamespace) -> PackedPart:
        """The modules, all with the same number of inputs, side by side."""
        weights = [module.weight for module in modules]
        rows, columns = tuple(map(len, weights)), weights[0].shape[1]
        biases = [w.new_zeros(len(w)) if module.bias is None else module.bias for w, module in zip(weights, modules)]
        joined = biases[0] if len(biases) == 1 and biases[0].is_contiguous() else torch.cat(biases)
        together = weights[0].contiguous() if len(weights) == 1 else torch.cat(weights)
        return cls(modules, rows, columns, kernels.pack_weight(together), joined)

    @property
    def out_features(self) -> int:
        """N, of all modules together."""
        return sum(self.rows)

    @property
    def copied(self) -> list[nn.Parameter]:
        """The parameters that are not read where they are."""
        own = (parameter for module in self.modules for parameter in (module.weight, module.bias))
        return [parameter for parameter in own if parameter is not None and parameter is not self.bias]

    def unpack(self) -> list[tuple[nn.Linear, Tensor]]:
        """The modules, each with its weight as it was packed, in memory of its own."""
        with torch.inference_mode(False), torch.no_grad():  # parameters are made of them
            weights = unpack_weight(self.weight, self.out_features, self.columns).split(self.rows)
            return list(zip(self.modules, [weight.clone(memory_format=torch.contiguous_format) for weight in weights]))

    def bind(self, kernels: SimpleNamespace, activation: int = 0) -> Callable[[Tensor], Tensor]:
        """x (T, K) -> activation(x W^T + b) (T, N)."""
        op, weight, bias, out_features = kernels.packed_linear, self.weight, self.bias, self.out_features
        return lambda x: op(x, weight, bias, out_features, activation)


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """A layer as the Python loop runs it, and the tensors and numbers that the `encoder` op needs of it.

    parts, norms: the linear layers that are packed and the LayerNorms that are fused with their residuals.
    weights: in the op's order, eps: of the two LayerNorms; both None unless every part is packed.
    """

    layer: Layer
    parts: tuple[PackedPart, ...]
    norms: tuple[nn.LayerNorm, ...]
    weights: tuple[Tensor, ...] | None
    eps: tuple[float, float] | None

    @property
    def left_out(self) -> list[nn.Module]:
        """The modules that are not called any more."""
        return [*(module for part in self.parts for module in part.modules), *self.norms]


def unpackable(modules: LayerModules, dtype: torch.dtype, device: str = "cpu") -> list[nn.Module]:
    """The linear layers and LayerNorms that must be called as the modules they are, in layers of this dtype and kind of device."""
    linears = (modules.query, modules.key, modules.value, modules.attention_out, modules.up, modules.down)
    norms = (modules.norm_attention, modules.norm_output)
    return [
        *(linear for linear in linears if not (type(linear) is nn.Linear and _is_plain(linear, dtype, device))),
        *(norm for norm in norms if not (_fusable(norm) and _is_plain(norm, dtype, device))),
    ]


def pack_layer(modules: LayerModules, dtype: torch.dtype, kernels: SimpleNamespace, device: str = "cpu") -> PackedLayer:
    """The layer, for activations of this dtype and kind of device, with every part packed that can be."""
    called = unpackable(modules, dtype, device)

    def linear(*parts: nn.Module, dropout: nn.Module | None = None) -> PackedPart | None:
        dropped = dropout is not None and dropout.training
        return None if dropped or any(part in called for part in parts) else PackedPart.of(parts, kernels)

    qkv = linear(modules.query, modules.key, modules.value)
    attention_out = linear(modules.attention_out, dropout=modules.dropout_attention)
    up, down = linear(modules.up), linear(modules.down, dropout=modules.dropout_output)
    norms = [None if norm in called else norm for norm in (modules.norm_attention, modules.norm_output)]

    parts = {}
    if qkv is not None:
        parts["qkv"] = _split(qkv.bind(kernels), modules.heads, modules.head_dim)
    if attention_out is not None:
        parts["attention_out"] = attention_out.bind(kernels)
    if up is not None:
        parts["up"] = _activated(up, modules, kernels)
    if down is not None:
        parts["down"] = down.bind(kernels)
    if up is not None and down is not None and device == "cpu":
        parts["block_rows"] = max(FEED_FORWARD_BYTES // (up.out_features * up.bias.element_size()), 1)
    for name, norm in zip(("norm_attention", "norm_output"), norms):
        if norm is not None:
            parts[name] = _fused_norm(norm, kernels)
    layer = replace(module_layer(modules), **parts)

    packed = tuple(part for part in (qkv, attention_out, up, down) if part is not None)
    fused = tuple(norm for norm in norms if norm is not None)
    whole = (qkv, attention_out, norms[0], up, down, norms[1])
    if any(part is None for part in whole) or modules.activation_name is None:
        return PackedLayer(layer, packed, fused, None, None)
    weights = tuple(t for p in whole for t in (p.weight, p.bias))
    return PackedLayer(layer, packed, fused, weights, (norms[0].eps, norms[1].eps))


def _is_plain(module: nn.Module, dtype: torch.dtype, device: str) -> bool:
    """Whether calling the module does nothing but its class's arithmetic on ordinary parameters of this dtype and device."""
    parameters = [p for p in module._parameters.values() if p is not None]
    stand_ins = torch.compiler.is_compiling()  # a tracer has tensors of its own in the place of the parameters
    return (
        {"weight", "bias"} <= module._parameters.keys()
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and "forward" not in module.__dict__
        and (stand_ins or all(type(p) in (nn.Parameter, Tensor) and not p.is_inference() for p in parameters))
        and all(p.device.type == device and p.dtype == dtype for p in parameters)
    )


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
