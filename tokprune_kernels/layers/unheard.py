"""Hooks that nothing will call: on the modules around the linear layers, which packed tokens do not pass."""

from __future__ import annotations

from collections.abc import Sequence
from operator import getitem, is_

from torch import nn

from .modules import LayerModules

# By which transformers collects hidden states and attention maps of models that call their layers; they stay where they were once put.
_COLLECTING = "transformers.utils.output_capturing"
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Unheard:
    """The modules of some layers that are not called as modules.

    Asked at every forward: a flat list of dicts, whose lengths are added up.
    """

    def __init__(self, layers: nn.ModuleList, views: Sequence[LayerModules]):
        self._layers = layers
        members = [(module._modules, name) for module in layers.modules() for name in module._modules]
        self._owners, self._names = [owner for owner, _ in members], [name for _, name in members]
        self._members = [owner[name] for owner, name in members]
        heard = {module for view in views for part in view.called for module in part.modules()}
        self._modules = [(name, module) for name, module in layers.named_modules() if name and module not in heard]
        self._hooks = [getattr(module, hooks) for _, module in self._modules for hooks in _HOOKS]
        self._known = 0  # hooks of which none is of interest

    def __reduce__(self):
        return type(None), ()  # copies look for themselves

    def is_of(self, layers: nn.ModuleList) -> bool:
        """Whether these are the layers, and nothing in them was replaced."""
        try:
            return layers is self._layers and all(map(is_, map(getitem, self._owners, self._names), self._members))
        except KeyError:
            return False

    def hooked(self) -> str | None:
        """Name and class of the first that has a hook, or None."""
        count = sum(map(len, self._hooks))
        if count == self._known:
            return None
        for name, module in self._modules:
            if any(getattr(hook, "__module__", "") != _COLLECTING for hooks in _HOOKS for hook in getattr(module, hooks).values()):
                return f"layer {name} ({type(module).__name__})"
        self._known = count
        return None
