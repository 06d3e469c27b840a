"""Makes `torch.ops.tokprune` known as soon as this package and torch are imported.

The compiled kernels are loaded, and the ops defined, when one of them is asked for: until then they cost an import nothing, and
nobody who uses none of them hears that they are missing.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ._when_imported import when_imported

_NAMESPACE = "tokprune"


def announce_ops() -> None:
    """Put the namespace into torch.ops now, or when torch is imported."""
    when_imported("torch", _announce)


def _announce(torch: ModuleType) -> None:
    class Namespace(torch._ops._OpNamespace):
        """Defines the ops before it looks for the first one."""

        __module__ = torch._ops._OpNamespace.__module__  # part of the ops' names in exported programs

        def __getattr__(self, name: str):
            if not name.startswith("_"):
                import_module("tokprune_kernels.ops")  # from within that import: as far as it has come
            return super().__getattr__(name)

    if _NAMESPACE not in vars(torch.ops):  # else somebody has loaded the library by itself
        setattr(torch.ops, _NAMESPACE, Namespace(_NAMESPACE))
