"""Layers whose weights were packed once, for inference, and the cache that keeps them true to their modules."""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem, is_
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from .compute import Layer
from .modules import LayerModules
from .packed_layer import pack_layer
from .whole import WholeEncoder

View = Callable[[nn.Module], LayerModules]


class PackedLayers:
    """The packed form of a stack of layers, kept as long as it is true; no part of any state: copies and pickles are empty.

    It is rebuilt when a module or parameter was replaced, moved or written to. Only writes through `parameter.data` leave no
    trace: call `clear`, or `model.train()` which does, after those.
    """

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None

    def get(self, layers: nn.ModuleList, view: View, dtype: torch.dtype, kernels: SimpleNamespace) -> Snapshot:
        """The layers for activations of `dtype`; packs the weights if that was not done or something has changed."""
        snapshot = self._snapshot  # one read, one write: threads may at worst pack twice
        if snapshot is None or snapshot.dtype != dtype or len(snapshot.layers) != len(layers) or not snapshot.holds():
            snapshot = self._snapshot = Snapshot(layers, view, dtype, kernels)
        return snapshot

    def clear(self) -> None:
        """Forget the packed weights."""
        self._snapshot = None

    def __reduce__(self):
        return PackedLayers, ()


class Snapshot:
    """Packed layers and all that must stay as it is for them to be true.

    layers: as the Python loop runs them.   whole: as one op runs them, or None if a part of them is no plain module.

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
            packed = [pack_layer(v, kernels, self._is_plain) for v in views]
        self.layers: list[Layer] = [one.layer for one in packed]
        self.whole = WholeEncoder.of(packed, views)

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

    def _is_plain(self, module: nn.Module) -> bool:
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
