"""Whether the GPU kernels can run: they need triton, which CUDA builds of PyTorch bring with them."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

CHECKS_VARIABLE = "TOKPRUNE_GPU_CHECKS"
# Names a file of tiles to take instead of the shipped ones (gpu/tiles.py).
TILES_VARIABLE = "TOKPRUNE_GPU_TILES"


@cache
def has_triton() -> bool:
    """Whether triton is installed; it is not imported for that."""
    return find_spec("triton") is not None


@cache
def checks_elements() -> bool:
    """Whether elements of GPU tensors are checked before a kernel reads them: TOKPRUNE_GPU_CHECKS=1, read at the first call.

    Each check waits for the device. Without them a wrong index moves zeros or nothing, but never memory that is not the
    tensor's own. Raises ValueError for a value other than 0 and 1.
    """
    value = os.environ.get(CHECKS_VARIABLE, "0")
    if value not in ("0", "1"):
        raise ValueError(f"{CHECKS_VARIABLE} must be 0 or 1, got {value!r}")
    return value == "1"
