"""Which implementation of the ops the loop calls for a device, dtype and head size."""

from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional

from .. import reference
from .._extension import extension_status
from .._gpu import has_triton
from ..ops.needs import COMPILED_FLOATS, GPU_FLOATS
from ..ops.schemas import NAMES
from ..reference.linear import FUNCTIONS

# Bound once: an attribute look-up in torch.ops costs more than the checks of a small op.
OPS = SimpleNamespace(**{name: getattr(torch.ops.tokprune, name).default for name in NAMES})
REFERENCE = SimpleNamespace(**{name: getattr(reference, name) for name in NAMES})


# Rows from which an activation is worth a product of ours: apart it reads and writes the widest of all activations once more, which
# on an H100 takes longer than cuBLAS is ahead of us. For fewer rows the host, which launches torch's kernels faster, is what counts.
FUSED_ROWS = 4096


def _linear(x: Tensor, weight: Tensor, bias: Tensor, out_features: int, activation: int = 0) -> Tensor:
    """A linear layer on a GPU and an activation by its code, in the place of `packed_linear`."""
    if activation and x.shape[0] >= FUSED_ROWS and x.element_size() == 2 and x.is_cuda and not torch.compiler.is_compiling():
        from ..gpu.linear import linear_into

        out = x.new_empty(x.shape[0], out_features)
        linear_into(out, x, weight, bias, activation)
        return out
    return FUNCTIONS[activation](functional.linear(x, weight, bias))


# How layers are "packed" for a GPU: their weights as torch has them, read where they are; only query, key and value are joined.
GPU_LAYOUT = SimpleNamespace(pack_weight=Tensor.contiguous, packed_linear=_linear, add_layer_norm=OPS.add_layer_norm)

# Read once: the loop asks at every forward.
COMPILED = extension_status().loaded


def select_kernels(x: torch.Tensor, head_dim: int) -> SimpleNamespace:
    """The registered ops, or the plain reference where the device's kernels do not reach (float64, odd head sizes)."""
    if x.device.type == "cpu":
        reached = not COMPILED or (x.dtype in COMPILED_FLOATS and head_dim % 8 == 0 and head_dim <= 256)
    else:
        reached = not has_triton() or (x.dtype in GPU_FLOATS and head_dim <= 128)
    return OPS if reached else REFERENCE


def has_packed_linear(x: torch.Tensor) -> bool:
    """Whether layers are worth packing for x: the reference would unpack their weights for every product."""
    if x.device.type == "cpu":
        return COMPILED and x.dtype in COMPILED_FLOATS
    return x.is_cuda and has_triton() and x.dtype in GPU_FLOATS
