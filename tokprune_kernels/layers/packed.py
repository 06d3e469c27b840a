"""Layers whose weights were packed once, for inference, and the cache that keeps them true to their modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import torch
from torch import nn

from .compute import Layer
from .modules import LayerModules
from .packed_layer import PackedPart, pack_layer
from .watch import Watch
from .whole import WholeEncoder

View = Callable[[nn.Module], LayerModules]


class PackedStack:
    """Layers packed for activations of `dtype` on a kind of `device`.

    layers: as the Python loop runs them.   whole: as one op runs them, or None if a part of them is no plain module.
    parts: the linear layers that were packed.
    """

    def __init__(self, views: Sequence[LayerModules], dtype: torch.dtype, kernels: SimpleNamespace, device: str = "cpu"):
        self.dtype, self.packed_for = dtype, (dtype, kernels, device)
        # Not inference tensors: those could not be used outside torch.inference_mode later.
        with torch.inference_mode(False), torch.no_grad():
            self.packed = [pack_layer(view, dtype, kernels, device) for view in views]
        self.layers: list[Layer] = [one.layer for one in self.packed]
        self.whole = WholeEncoder.of(self.packed, views)

    @property
    def parts(self) -> list[PackedPart]:
        """The linear layers that are packed, in the order of the layers."""
        return [part for one in self.packed for part in one.parts]


class Snapshot(PackedStack):
    """A packed stack that notices when it is no longer true to its modules."""

    def __init__(self, layers: nn.ModuleList, view: View, dtype: torch.dtype, kernels: SimpleNamespace, device: str = "cpu"):
        views = [view(layer) for layer in layers]
        watch = Watch(layers, views)
        super().__init__(views, dtype, kernels, device)
        watch.rely_on(self.packed)
        self.holds = watch.holds


class PackedLayers:
    """The packed form of a stack of layers, kept as long as it is true; no part of any state: copies and pickles are empty.

    It is rebuilt when a module or parameter was replaced, moved or written to, through `parameter.data` as well: see ContentProbe for
    what is noticed then. Who writes single elements there, or on a GPU, calls `clear`, or `model.train()` which does.
    """

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None

    def get(
        self, layers: nn.ModuleList, view: View, dtype: torch.dtype, kernels: SimpleNamespace, device: str = "cpu"
    ) -> Snapshot:
        """The layers for activations of `dtype` on a kind of device; packs the weights if that was not done or something has changed."""
        snapshot = self._snapshot  # one read, one write: threads may at worst pack twice
        fits = snapshot is not None and snapshot.packed_for == (dtype, kernels, device)
        if not fits or len(snapshot.layers) != len(layers) or not snapshot.holds():
            snapshot = self._snapshot = Snapshot(layers, view, dtype, kernels, device)
        return snapshot

    def clear(self) -> None:
        """Forget the packed weights."""
        self._snapshot = None

    def __reduce__(self):
        return PackedLayers, ()
