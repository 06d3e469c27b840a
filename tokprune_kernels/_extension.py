"""Loads the compiled CPU kernels, or says once what runs instead of them."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

LIBRARY = Path(__file__).with_name("_torch_ops.so")
BACKEND_VARIABLE = "TOKPRUNE_BACKEND"
_BACKENDS = ("auto", "extension", "reference")
_HOW_TO_BUILD = "build it with `pip install --no-build-isolation .` in a checkout of tokprune-kernels"


@dataclass(frozen=True)
class ExtensionStatus:
    """Which CPU kernels this process runs.

    loaded: the compiled kernels run; otherwise the plain PyTorch reference does.
    path: where the library is looked for.   detail: one sentence for people.
    """

    loaded: bool
    path: str
    detail: str


@cache
def extension_status() -> ExtensionStatus:
    """Load the compiled kernels if that was not done yet, and say what runs.

    The environment variable TOKPRUNE_BACKEND, read at the first call, chooses: "auto" (default: compiled kernels if they
    were built), "extension" (their absence is an error) or "reference" (plain PyTorch even if they were built).

    Raises ImportError if the library exists but cannot be loaded, or is asked for but missing; ValueError for an unknown
    TOKPRUNE_BACKEND.
    """
    backend = os.environ.get(BACKEND_VARIABLE, "auto")
    if backend not in _BACKENDS:
        raise ValueError(f"{BACKEND_VARIABLE} must be one of {', '.join(_BACKENDS)}, got {backend!r}")
    if backend == "reference":
        return ExtensionStatus(False, str(LIBRARY), f"plain PyTorch reference, as asked by {BACKEND_VARIABLE}=reference")
    if not LIBRARY.exists():
        return _missing(required=backend == "extension")
    try:
        torch.ops.load_library(LIBRARY)
    except OSError as error:
        raise ImportError(
            f"the compiled CPU kernels at {LIBRARY} exist but cannot be loaded: {error}. They were probably built for "
            f"another PyTorch or platform: {_HOW_TO_BUILD}, or set {BACKEND_VARIABLE}=reference to run without them"
        ) from error
    return ExtensionStatus(True, str(LIBRARY), "compiled CPU kernels")


def _missing(required: bool) -> ExtensionStatus:
    message = f"the compiled CPU kernels are missing (no {LIBRARY})"
    if required:
        raise ImportError(f"{message} but {BACKEND_VARIABLE}=extension asks for them: {_HOW_TO_BUILD}")
    warnings.warn(
        f"tokprune_kernels: {message}. The plain PyTorch reference runs instead: same results, no speed-up. "
        f"To get the kernels, {_HOW_TO_BUILD}; to silence this, set {BACKEND_VARIABLE}=reference",
        RuntimeWarning,
        stacklevel=2,
    )
    return ExtensionStatus(False, str(LIBRARY), "plain PyTorch reference: the compiled kernels were not built")
