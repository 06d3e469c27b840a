"""Noticing that modules are no longer what was packed: replaced, hooked, moved or written to."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, getitem, is_

from torch import Tensor, nn

from .modules import LayerModules
from .packed_layer import PackedLayer
from .probe import ContentProbe

_version, _training, _eps = attrgetter("_version"), attrgetter("training"), attrgetter("eps")


class Watch:
    """All that must stay as it is for packed layers to be true to their modules.

    Made before the layers are packed, so that a change meanwhile is noticed too; `rely_on` then says what they rely on.
    It is asked at every forward: flat lists and C-level loops keep that at a few microseconds a layer. The probe of what was copied
    is read after the packing, from the same memory: a write in between is one that the packed weights may have.
    """

    def __init__(self, layers: nn.ModuleList, views: Sequence[LayerModules]) -> None:
        modules = list(layers.modules())
        members = [(owner, name) for m in modules for owner in (m._modules, m._parameters) for name in owner]
        self.owners, self.names = [owner for owner, _ in members], [name for _, name in members]
        self.members = [owner[name] for owner, name in members]
        self.dropouts = [dropout for view in views for dropout in view.dropouts]
        self.training = list(map(_training, self.dropouts))
        self.contents = {id(p): (p, p._version, p.detach()) for p in layers.parameters() if not p.is_inference()}

    def rely_on(self, layers: Sequence[PackedLayer]) -> None:
        """Watch these layers' modules and parameters.

        Writes matter only to what was copied; the rest is read where it is. Its address matters all the same: with other
        memory may come another dtype or layout.
        """
        left_out = [module for layer in layers for module in layer.left_out]
        # Of the modules that are not called any more: their hooks, and where a forward of their own would be.
        self.hooks = [hooks for m in left_out for hooks in (m._forward_hooks, m._forward_pre_hooks)]
        self.attributes = [m.__dict__ for m in left_out]
        self.norms = [norm for layer in layers for norm in layer.norms]
        self.eps = list(map(_eps, self.norms))

        used = [self.contents[id(p)] for m in left_out for p in m._parameters.values() if p is not None]
        copied = [self.contents[id(p)] for layer in layers for part in layer.parts for p in part.copied]
        self.copied, self.versions = [p for p, _, _ in copied], [version for _, version, _ in copied]
        self.probe = ContentProbe(alias for _, _, alias in copied)
        # Aliases keep the old memory from being reused, so that an equal address means the same memory.
        self.parameters, self.aliases = [p for p, _, _ in used], [alias for _, _, alias in used]
        self.addresses = list(map(Tensor.data_ptr, self.aliases))
        del self.contents

    def holds(self) -> bool:
        """Whether modules, parameters and what was copied of these are still the same."""
        try:
            in_place = all(map(is_, map(getitem, self.owners, self.names), self.members))
        except KeyError:
            return False
        return (
            in_place
            and not any(self.hooks)
            and not any("forward" in attributes for attributes in self.attributes)
            and list(map(Tensor.data_ptr, self.parameters)) == self.addresses
            and list(map(_version, self.copied)) == self.versions
            and list(map(_training, self.dropouts)) == self.training
            and list(map(_eps, self.norms)) == self.eps
            and self.probe.holds()
        )
