"""What one argument of an op has to be, of whichever op: type, dtype, shape, device and range (checks.py says of which).

Like there: metadata only, TypeError for types and dtypes, ValueError for the rest.
"""

import math

import torch

from .._extension import extension_status
from .._gpu import has_triton
from ..reference.linear import PANEL_COLUMNS

# The reference takes more dtypes than the kernels of either device.
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
COMPILED_FLOATS = (torch.float32, torch.bfloat16)
GPU_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
SCORES = (torch.float32, torch.float64)
COMPILED_SCORES = (torch.float32,)
MASKS = (torch.bool, torch.uint8, torch.int32, torch.int64, torch.float32)


def tensor(name, x, dtypes=None, dims=None, like=None, like_name="the other tensors", hint=""):
    """The checks that every tensor argument needs: that it is one, of a given dtype, dimension and device."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
    if dtypes is not None and x.dtype not in dtypes:
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise TypeError(f"{name} must be {wanted}, got {x.dtype}{hint}")
    if dims is not None and x.dim() != dims:
        raise ValueError(f"{name} must have {dims} dimension(s), got shape {tuple(x.shape)}{hint}")
    if like is not None and x.device != like.device:
        raise ValueError(f"{name} must be on the device of {like_name}, {like.device}, got {x.device}")


def rows_exist(name, x):
    if x.dim() < 1:
        raise ValueError(f"{name} must have rows, (T, ...); got a 0-dimensional tensor")


def length(name, x, rows, meaning):
    if violated(x.shape[0] == rows):
        raise ValueError(f"{name} must have {rows} rows ({meaning}), got shape {tuple(x.shape)}")


def same_shape(name, x, other_name, other):
    if any(violated(a == b) for a, b in zip(x.shape, other.shape)):
        raise ValueError(f"{name} must have the shape of {other_name}, {tuple(other.shape)}, got {tuple(x.shape)}")


def violated(condition) -> bool:
    """Whether a condition on sizes is false; one on sizes unknown while tracing counts as true."""
    if condition is True or condition is False:
        return not condition
    from torch.fx.experimental.symbolic_shapes import guard_or_true  # heavy, and only tracing needs it

    return not guard_or_true(condition)


def finite(name, value):
    if isinstance(value, torch.Tensor) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a float, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")


def ratio(value):
    if not 0.0 < value <= 1.0:
        raise ValueError(f"keep_ratio must be in (0, 1], got {value}: it is the share of the tokens that is kept")


def count_first(value, by_ratio, protect_first):
    """by_ratio: whether it is a keep ratio that decides."""
    if value:
        return
    if not by_ratio:
        raise ValueError("count_first=False says what a keep ratio is of: leave it out where a threshold decides")
    if not protect_first:
        raise ValueError(
            "count_first=False sets the first token of a sequence beside the ranking, where it always stays: leave out "
            "protect_first=False"
        )


def eps(value):
    finite("eps", value)
    if value < 0:
        raise ValueError(f"eps must not be negative, got {value}")


def activation(code):
    if not 0 <= code <= 3:
        raise ValueError(f"activation must be a code from 0 to 3 (none, gelu, gelu_tanh, relu), got {code}")


def kernels(x):
    """The device whose kernels would run, None for the reference; what is no tensor is refused by the check that follows."""
    device = x.device.type if isinstance(x, torch.Tensor) else None
    there = extension_status().loaded if device == "cpu" else device == "cuda" and has_triton()
    return device if there else None


def floats(x):
    device = kernels(x)
    return FLOATS if device is None else COMPILED_FLOATS if device == "cpu" else GPU_FLOATS


def scores(x):
    return SCORES if kernels(x) is None else COMPILED_SCORES


def index(name, x, like):
    tensor(name, x, (torch.int32,), 1, like, hint="; convert it with .to(torch.int32)")


def cu_seqlens(bounds, like):
    index("cu_seqlens", bounds, like)
    if violated(bounds.shape[0] >= 1):
        raise ValueError("cu_seqlens must have B + 1 entries, the first one 0; it is empty")


def total(keep_idx, value):
    if violated(value >= 0) or violated(value <= keep_idx.shape[0]):
        raise ValueError(f"total must be between 0 and len(keep_idx) = {keep_idx.shape[0]}, got {value}")


def denominators(values, cu_seqlens, like):
    if values is not None:
        tensor("denominators", values, scores(like), 1, like)
        length("denominators", values, cu_seqlens.shape[0] - 1, "one per sequence, len(cu_seqlens) - 1")


def token_weights(name, weights, q):
    if weights is not None:
        tensor(name, weights, (torch.float64 if q.dtype == torch.float64 else torch.float32,), 1, q)
        length(name, weights, q.shape[0], "one per token")


def protected(values, rows):
    if values is not None:
        tensor("protected", values, (torch.bool,), 1, rows)
        length("protected", values, rows.shape[0], "one per token")


def packed_shape(out_features, in_features, dtype):
    """Of a weight (out_features, in_features) that pack_weight has packed: panels of columns, rows in pairs in bfloat16."""
    panels = -(-out_features // PANEL_COLUMNS)
    if dtype == torch.bfloat16:
        return panels, (in_features + 1) // 2, PANEL_COLUMNS, 2
    return panels, in_features, PANEL_COLUMNS


def packed_weight(weight, x, out_features, in_features=None, name="weight"):
    dims = 4 if x.dtype == torch.bfloat16 else 3
    tensor(name, weight, (x.dtype,), dims, x, "x", hint="; pack it with pack_weight in the dtype of x")
    if violated(out_features > 0):
        raise ValueError(f"out_features must be positive, got {out_features}")
    in_features = x.shape[1] if in_features is None else in_features
    wanted = packed_shape(out_features, in_features, x.dtype)
    if any(violated(have == want) for have, want in zip(weight.shape, wanted)):
        raise ValueError(
            f"{name} must be packed for {in_features} input columns and out_features {out_features}, shape {wanted}; "
            f"got {tuple(weight.shape)}"
        )
