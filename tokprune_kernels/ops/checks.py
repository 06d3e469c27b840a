"""What every op asks of its arguments' types, shapes, devices and ranges: one function per op, with the op's signature.

Only metadata is read, no element, so the checks are cheap, need no host sync and work on fake tensors and symbolic
sizes. The public functions, the fake kernels and the reference kernels all call them. Wrong types and dtypes raise
TypeError, everything else ValueError.
"""

import math

import torch

from .._extension import extension_status
from .._gpu import has_triton

# The reference takes more dtypes than the kernels of either device.
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
COMPILED_FLOATS = (torch.float32, torch.bfloat16)
GPU_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
SCORES = (torch.float32, torch.float64)
COMPILED_SCORES = (torch.float32,)
MASKS = (torch.bool, torch.uint8, torch.int32, torch.int64, torch.float32)
PANEL_COLUMNS = 64


def attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators=None, key_bias=None, row_weights=None):
    varlen_attention(q, k, v, cu_seqlens, max_seqlen, scale)
    _denominators(denominators, cu_seqlens, q)
    _token_weights("key_bias", key_bias, q)
    _token_weights("row_weights", row_weights, q)


def attn_importance_backward(
    grad_context, grad_importance, q, k, v, cu_seqlens, max_seqlen, scale, denominators=None, key_bias=None, row_weights=None
):
    attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators, key_bias, row_weights)
    _tensor("grad_context", grad_context, (q.dtype,), 3, q)
    _same_shape("grad_context", grad_context, "q", q)
    _token_weights("grad_importance", grad_importance, q)


def varlen_attention(q, k, v, cu_seqlens, max_seqlen, scale):
    _tensor("q", q, _floats(q), 3)
    for name, x in (("k", k), ("v", v)):
        _tensor(name, x, (q.dtype,), 3, q)
        _same_shape(name, x, "q", q)
    if _violated(q.shape[1] > 0) or _violated(q.shape[2] > 0):
        raise ValueError(f"q must have at least one head and one channel, (T, N_h, d); got shape {tuple(q.shape)}")
    _cu_seqlens(cu_seqlens, q)
    if not isinstance(max_seqlen, (int, torch.SymInt)) or isinstance(max_seqlen, bool):
        raise TypeError(f"max_seqlen must be an int, got {max_seqlen!r}")
    if _violated(max_seqlen >= 0):
        raise ValueError(f"max_seqlen must be at least the length of the longest sequence, got {max_seqlen}")
    _finite("scale", scale)


def keep_threshold(importance, cu_seqlens, threshold, protected=None, protect_first=True, capacity=False):
    _keep(importance, cu_seqlens, protected)
    _finite("threshold", threshold)


def keep_topk(importance, cu_seqlens, keep_ratio, protected=None, protect_first=True, capacity=False):
    _keep(importance, cu_seqlens, protected)
    _ratio(keep_ratio)


def compact(x, keep_idx, total):
    _tensor("x", x)
    _rows_exist("x", x)
    _index("keep_idx", keep_idx, x)
    _total(keep_idx, total)


def compact_many(xs, keep_idx, total):
    if not isinstance(xs, (list, tuple)) or not xs:
        raise TypeError(f"xs must be a list of at least one tensor, got {type(xs).__name__} {xs!r}")
    for number, x in enumerate(xs):
        name = f"xs[{number}]"
        _tensor(name, x, like=xs[0], like_name="xs[0]")
        _rows_exist(name, x)
        _length(name, x, xs[0].shape[0], "as many rows as xs[0]")
    _index("keep_idx", keep_idx, xs[0])
    _total(keep_idx, total)


def prune_attention(
    q,
    k,
    v,
    residual,
    cu_seqlens,
    max_seqlen,
    scale,
    threshold=None,
    keep_ratio=None,
    denominators=None,
    protected=None,
    protect_first=True,
):
    attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators)
    _tensor("residual", residual, FLOATS, 2, q)
    _length("residual", residual, q.shape[0], "one row per row of q")
    _protected(protected, q)
    if (threshold is None) == (keep_ratio is None):
        raise ValueError(f"give exactly one of threshold and keep_ratio, got threshold={threshold}, keep_ratio={keep_ratio}")
    if threshold is not None:
        _finite("threshold", threshold)
    else:
        _ratio(keep_ratio)


def pack_index(attention_mask):
    _tensor("attention_mask", attention_mask, MASKS, 2)


def pack(x, attention_mask):
    pack_index(attention_mask)
    _tensor("x", x, like=attention_mask, like_name="attention_mask")
    if x.dim() < 2:
        raise ValueError(f"x must be (B, L, ...), got shape {tuple(x.shape)}")
    for dim in (0, 1):
        if _violated(x.shape[dim] == attention_mask.shape[dim]):
            raise ValueError(
                f"x must begin with the shape of attention_mask, {tuple(attention_mask.shape)}, got {tuple(x.shape)}"
            )


def unpack(packed, token_idx, batch, length):
    _tensor("packed", packed)
    _rows_exist("packed", packed)
    _index("token_idx", token_idx, packed)
    _length("token_idx", token_idx, packed.shape[0], "one per row of packed")
    for name, size in (("batch", batch), ("length", length)):
        if _violated(size >= 0):
            raise ValueError(f"{name} must not be negative, got {size}")


def store_exits_(out, x, token_idx, keep_idx):
    _tensor("x", x, dims=2)
    _tensor("out", out, (x.dtype,), 2, x, "x")
    if not out.is_contiguous():
        raise ValueError(f"out must be contiguous, it is written in place; got strides {out.stride()}")
    if _violated(out.shape[1] == x.shape[1]):
        raise ValueError(f"out must have the width of x, {x.shape[1]}, got shape {tuple(out.shape)}")
    _index("token_idx", token_idx, x)
    _length("token_idx", token_idx, x.shape[0], "one per row of x")
    _index("keep_idx", keep_idx, x)


def add_layer_norm(x, residual, weight, bias, eps):
    _tensor("x", x, _floats(x), 2)
    _tensor("residual", residual, (x.dtype,), 2, x, "x")
    _same_shape("residual", residual, "x", x)
    for name, parameter in (("weight", weight), ("bias", bias)):
        _tensor(name, parameter, (x.dtype,), 1, x, "x")
        _length(name, parameter, x.shape[1], "one per column of x")
    _eps(eps)


def pack_weight(weight):
    _tensor("weight", weight, COMPILED_FLOATS, 2)
    if _violated(weight.shape[0] > 0) or _violated(weight.shape[1] > 0):
        raise ValueError(f"weight must be (out_features, in_features), both positive; got shape {tuple(weight.shape)}")


def packed_linear(x, weight, bias, out_features, activation=0, rows=None):
    _tensor("x", x, COMPILED_FLOATS, 2)
    _packed_weight(weight, x, out_features)
    _activation(activation)
    if bias is not None:
        _tensor("bias", bias, (x.dtype,), 1, x, "x")
        _length("bias", bias, out_features, "out_features")
    if rows is not None:
        _index("rows", rows, x)


def encoder(
    x,
    cu_seqlens,
    max_seqlen,
    weights,
    eps,
    heads,
    activation,
    scale,
    keep,
    topk,
    before_layer,
    denominators=None,
    protected=None,
    protect_first=True,
    readout=0,
    token_idx=None,
    places=0,
):
    _tensor("x", x, COMPILED_FLOATS, 2)
    _cu_seqlens(cu_seqlens, x)
    layers = len(eps) // 2
    if len(eps) % 2 or len(weights) != 12 * layers:
        raise ValueError(f"weights and eps must hold 12 tensors and 2 numbers a layer, got {len(weights)} and {len(eps)}")
    hidden = x.shape[1]
    if heads < 1 or _violated(hidden % heads == 0):
        raise ValueError(f"heads must divide the {hidden} columns of x, got {heads}")
    for index in range(layers):
        _encoder_layer(index, weights[12 * index : 12 * index + 12], x)
    _activation(activation)
    _finite("scale", scale)
    for value in eps:
        _eps(value)
    _keep_values(keep, layers, topk, before_layer)
    _denominators(denominators, cu_seqlens, x)
    _protected(protected, x)
    if readout not in (0, 1, 2):
        raise ValueError(f"readout must be a code from 0 to 2 (all, first, first_only), got {readout}")
    if readout == 0:
        if token_idx is None:
            raise ValueError("token_idx must be given with readout 'all': it says to which row of the result a token belongs")
        _index("token_idx", token_idx, x)
        _length("token_idx", token_idx, x.shape[0], "one per row of x")
    elif keep and not protect_first:
        raise ValueError("only the readout 'all' goes with protect_first=False: the first tokens may be pruned")


def _encoder_layer(index, tensors, x):
    hidden, wide = x.shape[1], tensors[7].shape[0] if isinstance(tensors[7], torch.Tensor) else 0
    shapes = ((hidden, 3 * hidden), (hidden, hidden), None, (hidden, wide), (wide, hidden), None)
    for part, shape in enumerate(shapes):
        weight, bias = tensors[2 * part : 2 * part + 2]
        name, out_features = f"weights[{12 * index + 2 * part}]", hidden if shape is None else shape[1]
        if shape is None:
            _tensor(name, weight, (x.dtype,), 1, x, "x")
            _length(name, weight, hidden, "one per column of x")
        else:
            _packed_weight(weight, x, out_features, shape[0], name)
        name = f"weights[{12 * index + 2 * part + 1}]"
        _tensor(name, bias, (x.dtype,), 1, x, "x")
        _length(name, bias, out_features, "one per output")


def _keep_values(keep, layers, topk, before_layer):
    if keep and len(keep) != layers:
        raise ValueError(f"thresholds or keep_ratios must hold a number a layer, {layers}, got {len(keep)}")
    for value in keep:
        _ratio(value) if topk else _finite("threshold", value)
    if keep and before_layer and (keep[0] < 1.0 if topk else keep[0] > 0.0):
        raise ValueError("with before_layer the first layer must prune nothing: no layer has scored the tokens before it")


def _activation(code):
    if not 0 <= code <= 3:
        raise ValueError(f"activation must be a code from 0 to 3 (none, gelu, gelu_tanh, relu), got {code}")


def _eps(eps):
    _finite("eps", eps)
    if eps < 0:
        raise ValueError(f"eps must not be negative, got {eps}")


def _packed_weight(weight, x, out_features, in_features=None, name="weight"):
    dims = 4 if x.dtype == torch.bfloat16 else 3
    _tensor(name, weight, (x.dtype,), dims, x, "x", hint="; pack it with pack_weight in the dtype of x")
    if _violated(out_features > 0):
        raise ValueError(f"out_features must be positive, got {out_features}")
    in_features = x.shape[1] if in_features is None else in_features
    pairs = (in_features + 1) // 2
    wanted = (-(-out_features // PANEL_COLUMNS), in_features, PANEL_COLUMNS)
    if dims == 4:
        wanted = (wanted[0], pairs, PANEL_COLUMNS, 2)
    if any(_violated(have == want) for have, want in zip(weight.shape, wanted)):
        raise ValueError(
            f"{name} must be packed for {in_features} input columns and out_features {out_features}, shape {wanted}; "
            f"got {tuple(weight.shape)}"
        )


def _floats(x):
    device = _kernels(x)
    return FLOATS if device is None else COMPILED_FLOATS if device == "cpu" else GPU_FLOATS


def _scores(x):
    return SCORES if _kernels(x) is None else COMPILED_SCORES


def _kernels(x):
    """The device whose kernels would run, None for the reference; what is no tensor is refused by the check that follows."""
    device = x.device.type if isinstance(x, torch.Tensor) else None
    there = {"cpu": extension_status().loaded, "cuda": has_triton()}
    return device if there.get(device) else None


def _keep(importance, cu_seqlens, protected):
    _tensor("importance", importance, _scores(importance), 1)
    _cu_seqlens(cu_seqlens, importance)
    _protected(protected, importance)


def _denominators(denominators, cu_seqlens, like):
    if denominators is not None:
        _tensor("denominators", denominators, _scores(like), 1, like)
        _length("denominators", denominators, cu_seqlens.shape[0] - 1, "one per sequence, len(cu_seqlens) - 1")


def _token_weights(name, weights, q):
    if weights is not None:
        _tensor(name, weights, (torch.float64 if q.dtype == torch.float64 else torch.float32,), 1, q)
        _length(name, weights, q.shape[0], "one per token")


def _protected(protected, rows):
    if protected is not None:
        _tensor("protected", protected, (torch.bool,), 1, rows)
        _length("protected", protected, rows.shape[0], "one per token")


def _cu_seqlens(cu_seqlens, like):
    _index("cu_seqlens", cu_seqlens, like)
    if _violated(cu_seqlens.shape[0] >= 1):
        raise ValueError("cu_seqlens must have B + 1 entries, the first one 0; it is empty")


def _index(name, x, like):
    _tensor(name, x, (torch.int32,), 1, like, hint="; convert it with .to(torch.int32)")


def _total(keep_idx, total):
    if _violated(total >= 0) or _violated(total <= keep_idx.shape[0]):
        raise ValueError(f"total must be between 0 and len(keep_idx) = {keep_idx.shape[0]}, got {total}")


def _ratio(keep_ratio):
    if not 0.0 < keep_ratio <= 1.0:
        raise ValueError(f"keep_ratio must be in (0, 1], got {keep_ratio}: it is the share of the tokens that is kept")


def _finite(name, value):
    if isinstance(value, torch.Tensor) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a float, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")


def _rows_exist(name, x):
    if x.dim() < 1:
        raise ValueError(f"{name} must have rows, (T, ...); got a 0-dimensional tensor")


def _length(name, x, length, meaning):
    if _violated(x.shape[0] == length):
        raise ValueError(f"{name} must have {length} rows ({meaning}), got shape {tuple(x.shape)}")


def _same_shape(name, x, other_name, other):
    if any(_violated(a == b) for a, b in zip(x.shape, other.shape)):
        raise ValueError(f"{name} must have the shape of {other_name}, {tuple(other.shape)}, got {tuple(x.shape)}")


def _tensor(name, x, dtypes=None, dims=None, like=None, like_name="the other tensors", hint=""):
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


def _violated(condition) -> bool:
    """Whether a condition on sizes is false; one on sizes unknown while tracing counts as true."""
    if condition is True or condition is False:
        return not condition
    from torch.fx.experimental.symbolic_shapes import guard_or_true  # heavy, and only tracing needs it

    return not guard_or_true(condition)
