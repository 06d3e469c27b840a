"""Packages that only parts of this one need: whether they are there, and the sentence that says how to get them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

# The extras of pyproject.toml that code asks for, smaller ones first; a test holds the two together.
EXTRAS = {"models": ("transformers",), "train": ("transformers", "accelerate", "datasets")}


class MissingPackage(ImportError):
    """A package that is needed here is not installed; the message says how to get it."""


def is_installed(package: str) -> bool:
    """Whether a top-level package is there; it is not imported for that."""
    if package in sys.modules:
        return sys.modules[package] is not None
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # said by an import hook
        return False


@contextmanager
def needing(who: str, packages: Sequence[str]) -> Iterator[None]:
    """Run a block that needs these packages, each of an extra (`EXTRAS`), and raise MissingPackage where one is missing.

    who: begins the sentence. The packages that they in turn need are said likewise, when the block gets to them.
    """
    if missing := [package for package in packages if not is_installed(package)]:
        raise _missing(who, missing, packages)
    try:
        yield
    except ModuleNotFoundError as error:
        package = _absent(error)
        if package is None or package.startswith("tokprune_"):  # not the installation's fault, but ours
            raise
        raise _missing(who, [package], packages) from None


def _missing(who: str, missing: Sequence[str], packages: Sequence[str]) -> MissingPackage:
    wanted = {*packages, *(package for package in missing if any(package in has for has in EXTRAS.values()))}
    extra = next((f"[{name}]" for name, has in EXTRAS.items() if wanted and wanted <= set(has)), "")
    listed = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
    return MissingPackage(
        f"{who} needs {listed}, not installed here: "
        f'pip install "tokprune-kernels{extra}", or in a checkout pip install --no-build-isolation ".{extra}"',
        name=missing[0],
    )


def _absent(error: BaseException | None) -> str | None:
    """The top-level package at the end of a chain of causes: transformers wraps what its own imports raise."""
    found = None
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            found = error.name.partition(".")[0]
        error = error.__cause__
    return found
