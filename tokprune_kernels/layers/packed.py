"""Layers whose weights were packed once, for inference, and the cache that keeps them true to their modules.

What is not a plain, unhooked nn.Linear or nn.LayerNorm (LoRA-wrapped, quantised, parametrised, ...) is called as the
module it is, never bypassed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import getitem, is_
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from ..reference.linear import ACTIVATIONS
from .compute import Layer, module_layer
from .modules import LayerModules

# Activations of the feed-forward part that are computed at a time: half of a usual last-level cache.
FEED_FORWARD_BYTES = 16 * 2**20

View = Callable[[nn.Module], LayerModules]


class PackedLayers:
    """The packed form of a stack of layers, kept as long as it is true; no part of any state: copies and pickles are empty.

    It is rebuilt when a module or parameter was replaced, moved or written to. Only writes through `parameter.data` leave no
    trace: call `clear`, or `model.train()` which does, after those.
    """

    def __init__(self) -> None:
        self._snapshot: _Snapshot | None = None

    def get(self, layers: nn.ModuleList, view: View, dtype: torch.dtype, kernels: SimpleNamespace) -> list[Layer]:
        """The layers for activations of `dtype`; packs the weights if that was not done or something has changed."""
        snapshot = self._snapshot  # one read, one write: threads may at worst pack twice
        if snapshot is None or snapshot.dtype != dtype or len(snapshot.layers) != len(layers) or not snapshot.holds():
            snapshot = self._snapshot = _Snapshot(layers, view, dtype, kernels)
        return snapshot.layers

    def clear(self) -> None:
        """Forget the packed weights."""
        self._snapshot = None

    def __reduce__(self):
        return PackedLayers, ()


class _Snapshot:
    """Packed layers and all that must stay as it is for them to be true.

    The check runs at every forward: flat lists and C-level loops keep it at a few microseconds a layer.
    """

    def __init__(self, layers: nn.ModuleList, view: View, dtype: torch.dtype, kernels: SimpleNamespace):
        self.dtype = dtype
        modules = list(layers.modules())
        members = [(owner, name) for m in modules for owner in (m._modules, m._parameters) for name in owner]
        self.owners, self.names = [owner for owner, _ in members], [name for _, name in members]
        self.members = [owner[name] for owner, name in members]
        self.parameters = [p for m in modules for p in m._parameters.values() if p is not None and not p.is_inference()]
        # Aliases keep the old memory from being reused, so that an equal address means the same memory.
        self.aliases = [p.detach() for p in self.parameters]
        self.contents = self._read_contents()
        views = [view(layer) for layer in layers]
        self.dropouts = [dropout for v in views for dropout in v.dropouts]
        self.training = self._read_training()
        # Of the modules that are not called any more: their hooks, and where a forward of their own would be.
        self.hooks: list[dict] = []
        self.attributes: list[dict] = []
        # Not inference tensors: those could not be used outside torch.inference_mode later.
        with torch.inference_mode(False), torch.no_grad():
            self.layers = [self._pack(v, kernels) for v in views]

    def holds(self) -> bool:
        """Whether the modules, their parameters and the contents of these are those that were packed."""
        try:
            in_place = all(map(is_, map(getitem, self.owners, self.names), self.members))
        except KeyError:
            return False
        return (
            in_place
            and not any(self.hooks)
            and not any("forward" in attributes for attributes in self.attributes)
            and self._read_contents() == self.contents
            and self._read_training() == self.training
        )

    def _read_contents(self) -> list[tuple[int, int]]:
        return [(p._version, p.data_ptr()) for p in self.parameters]

    def _read_training(self) -> list[bool]:
        return [dropout.training for dropout in self.dropouts]

    def _pack(self, modules: LayerModules, kernels: SimpleNamespace) -> Layer:
        """The layer with every part packed that can be."""
        parts = {}
        if all(map(self._packable, (modules.query, modules.key, modules.value))):
            parts["qkv"] = _packed_qkv(modules, kernels)
        if self._packable(modules.attention_out, modules.dropout_attention):
            parts["attention_out"] = _packed_linear([modules.attention_out], kernels)
        if self._packable(modules.up):
            parts["up"] = _packed_up(modules, kernels)
        if self._packable(modules.down, modules.dropout_output):
            parts["down"] = _packed_linear([modules.down], kernels)
        if "up" in parts and "down" in parts:
            parts["block_rows"] = max(FEED_FORWARD_BYTES // (modules.up.out_features * modules.up.weight.element_size()), 1)
        for name in ("norm_attention", "norm_output"):
            if self._fusable(getattr(modules, name)):
                parts[name] = _fused_norm(getattr(modules, name), kernels)
        return replace(module_layer(modules), **parts)

    def _packable(self, module: nn.Module, dropout: nn.Module | None = None) -> bool:
        dropped = dropout is not None and dropout.training
        return type(module) is nn.Linear and self._plain(module) and not dropped

    def _fusable(self, module: nn.Module) -> bool:
        return (
            type(module) is nn.LayerNorm
            and module.weight is not None
            and module.bias is not None
            and module.weight.dim() == 1
            and self._plain(module)
        )

    def _plain(self, module: nn.Module) -> bool:
        """Whether calling the module does nothing but its class's arithmetic on ordinary CPU parameters of this dtype."""
        hooks = [module._forward_hooks, module._forward_pre_hooks]
        parameters = [p for p in module._parameters.values() if p is not None]
        plain = (
            not any(hooks)
            and "forward" not in module.__dict__
            and all(type(p) in (nn.Parameter, Tensor) and not p.is_inference() for p in parameters)
            and all(p.device.type == "cpu" and p.dtype == self.dtype for p in parameters)
        )
        if plain:
            self.hooks += hooks
            self.attributes.append(module.__dict__)
        return plain


def _packed_linear(modules: list[nn.Linear], kernels: SimpleNamespace, activation: str = "none") -> Callable:
    """x (T, K) -> activation(x W^T + b) of one linear layer, or of several side by side, packed as one."""
    weight = kernels.pack_weight(torch.cat([m.weight for m in modules]))
    biases = [m.weight.new_zeros(m.out_features) if m.bias is None else m.bias for m in modules]
    bias = torch.cat(biases) if any(m.bias is not None for m in modules) else None
    out_features = sum(m.out_features for m in modules)
    op, code = kernels.packed_linear, ACTIVATIONS[activation]
    return lambda x: op(x, weight, bias, out_features, code)


def _packed_qkv(modules: LayerModules, kernels: SimpleNamespace) -> Callable:
    project = _packed_linear([modules.query, modules.key, modules.value], kernels)
    heads, head_dim = modules.heads, modules.head_dim
    return lambda x: project(x).view(x.shape[0], 3, heads, head_dim).unbind(1)


def _packed_up(modules: LayerModules, kernels: SimpleNamespace) -> Callable:
    if modules.activation_name is not None:
        return _packed_linear([modules.up], kernels, modules.activation_name)
    project, activation = _packed_linear([modules.up], kernels), modules.activation
    return lambda x: activation(project(x))


def _fused_norm(module: nn.LayerNorm, kernels: SimpleNamespace) -> Callable:
    op, weight, bias, eps = kernels.add_layer_norm, module.weight, module.bias, module.eps
    return lambda x, residual: op(x, residual, weight, bias, eps)
