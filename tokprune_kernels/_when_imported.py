"""Does something to a module once it is there, without importing it for that."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any


def when_imported(name: str, run: Callable[[ModuleType], None]) -> None:
    """Call run(module) now if the module of that name is imported, else as soon as it was."""
    if name in sys.modules:
        run(sys.modules[name])
    else:
        sys.meta_path.insert(0, _WhenImported(name, run))


class _WhenImported(MetaPathFinder):
    """Runs after the module was imported, and is gone."""

    def __init__(self, name: str, run: Callable[[ModuleType], None]) -> None:
        self.name, self.run = name, run

    def find_spec(self, name: str, path: Any = None, target: Any = None):
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            self.run(module)

        spec.loader.exec_module = exec_module
        return spec
