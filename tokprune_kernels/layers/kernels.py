"""Which implementation of the ops the loop calls for a device, dtype and head size."""

from types import SimpleNamespace

import torch

from .. import reference
from .._extension import extension_status
from ..ops.checks import COMPILED_FLOATS
from ..ops.schemas import NAMES

# Bound once: an attribute look-up in torch.ops costs more than the checks of a small op.
OPS = SimpleNamespace(**{name: getattr(torch.ops.tokprune, name).default for name in NAMES})
REFERENCE = SimpleNamespace(**{name: getattr(reference, name) for name in NAMES})

# Read once: the loop asks at every forward.
COMPILED = extension_status().loaded


def select_kernels(x: torch.Tensor, head_dim: int) -> SimpleNamespace:
    """The registered ops, or the plain reference where the compiled kernels do not reach (float64, odd head sizes)."""
    compiled = COMPILED and x.device.type == "cpu"
    unreached = x.dtype not in COMPILED_FLOATS or head_dim % 8 or head_dim > 256
    return REFERENCE if compiled and unreached else OPS


def has_packed_linear(x: torch.Tensor) -> bool:
    """Whether `packed_linear` is worth calling for x: only the compiled kernels read packed weights without unpacking."""
    return COMPILED and x.device.type == "cpu" and x.dtype in COMPILED_FLOATS
