"""Hooks on modules of a layer that are not called as modules: on the layer itself they are called around it, on others never."""

from __future__ import annotations

from collections.abc import Sequence
from operator import getitem, is_

from torch import nn

from .calling import HOOKS, is_hooked
from .modules import LayerModules



class Unheard:
    """The modules of some layers that are not called, and the layers.

    Asked at every forward: a flat list of dicts, whose lengths are added up.
    """

    def __init__(self, layers: nn.ModuleList, views: Sequence[LayerModules]):
        self._layers = layers
        members = [(module._modules, name) for module in layers.modules() for name in module._modules]
        self._owners, self._names = [owner for owner, _ in members], [name for _, name in members]
        self._members = [owner[name] for owner, name in members]
        heard = {module for view in views for part in view.called for module in part.modules()}
        self._modules = [(name, module) for name, module in layers.named_modules() if name and module not in heard]
        self._hooks = [getattr(module, hooks) for _, module in self._modules for hooks in HOOKS]
        self._known, self._hooked = 0, (False, None)  # how many hooks there were, and what they came to

    def __reduce__(self):
        return type(None), ()  # copies look for themselves

    def is_of(self, layers: nn.ModuleList) -> bool:
        """Whether these are the layers, and nothing in them was replaced."""
        try:
            return layers is self._layers and all(map(is_, map(getitem, self._owners, self._names), self._members))
        except KeyError:
            return False

    def hooked(self) -> tuple[bool, str | None]:
        """Whether a layer itself is hooked, and name and class of the first other module that is, or None."""
        count = sum(map(len, self._hooks))
        if count != self._known:
            hooked = [(name, module) for name, module in self._modules if is_hooked(module)]
            inner = [f"layer {name} ({type(module).__name__})" for name, module in hooked if "." in name]
            self._known, self._hooked = count, (len(hooked) > len(inner), inner[0] if inner else None)
        return self._hooked
