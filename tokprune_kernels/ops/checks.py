"""What every op asks of its arguments' types, shapes, devices and ranges: one function per op, with the op's signature.

Only metadata is read, no element, so the checks are cheap, need no host sync and work on fake tensors and symbolic
sizes. The public functions, the fake kernels and the reference kernels all call them. Wrong types and dtypes raise
TypeError, everything else ValueError.
"""

import torch

from ..reference.encoder import PLACED, READOUTS
from . import needs as need


def attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators=None, key_bias=None, row_weights=None):
    varlen_attention(q, k, v, cu_seqlens, max_seqlen, scale)
    need.denominators(denominators, cu_seqlens, q)
    need.token_weights("key_bias", key_bias, q)
    need.token_weights("row_weights", row_weights, q)


def attn_importance_backward(
    grad_context, grad_importance, q, k, v, cu_seqlens, max_seqlen, scale, denominators=None, key_bias=None, row_weights=None
):
    attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators, key_bias, row_weights)
    need.tensor("grad_context", grad_context, (q.dtype,), 3, q)
    need.same_shape("grad_context", grad_context, "q", q)
    need.token_weights("grad_importance", grad_importance, q)


def varlen_attention(q, k, v, cu_seqlens, max_seqlen, scale):
    need.tensor("q", q, need.floats(q), 3)
    for name, x in (("k", k), ("v", v)):
        need.tensor(name, x, (q.dtype,), 3, q)
        need.same_shape(name, x, "q", q)
    if need.violated(q.shape[1] > 0) or need.violated(q.shape[2] > 0):
        raise ValueError(f"q must have at least one head and one channel, (T, N_h, d); got shape {tuple(q.shape)}")
    need.cu_seqlens(cu_seqlens, q)
    if not isinstance(max_seqlen, (int, torch.SymInt)) or isinstance(max_seqlen, bool):
        raise TypeError(f"max_seqlen must be an int, got {max_seqlen!r}")
    if need.violated(max_seqlen >= 0):
        raise ValueError(f"max_seqlen must be at least the length of the longest sequence, got {max_seqlen}")
    need.finite("scale", scale)


def keep_threshold(importance, cu_seqlens, threshold, protected=None, protect_first=True, capacity=False):
    _keep(importance, cu_seqlens, protected)
    need.finite("threshold", threshold)


def keep_topk(importance, cu_seqlens, keep_ratio, protected=None, protect_first=True, capacity=False, count_first=True):
    _keep(importance, cu_seqlens, protected)
    need.ratio(keep_ratio)
    need.count_first(count_first, True, protect_first)


def _keep(importance, cu_seqlens, protected):
    need.tensor("importance", importance, need.scores(importance), 1)
    need.cu_seqlens(cu_seqlens, importance)
    need.protected(protected, importance)


def compact(x, keep_idx, total):
    need.tensor("x", x)
    need.rows_exist("x", x)
    need.index("keep_idx", keep_idx, x)
    need.total(keep_idx, total)


def compact_many(xs, keep_idx, total):
    if not isinstance(xs, (list, tuple)) or not xs:
        raise TypeError(f"xs must be a list of at least one tensor, got {type(xs).__name__} {xs!r}")
    for number, x in enumerate(xs):
        name = f"xs[{number}]"
        need.tensor(name, x, like=xs[0], like_name="xs[0]")
        need.rows_exist(name, x)
        need.length(name, x, xs[0].shape[0], "as many rows as xs[0]")
    need.index("keep_idx", keep_idx, xs[0])
    need.total(keep_idx, total)


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
    count_first=True,
):
    attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators)
    need.tensor("residual", residual, need.FLOATS, 2, q)
    need.length("residual", residual, q.shape[0], "one row per row of q")
    need.protected(protected, q)
    if (threshold is None) == (keep_ratio is None):
        raise ValueError(f"give exactly one of threshold and keep_ratio, got threshold={threshold}, keep_ratio={keep_ratio}")
    if threshold is not None:
        need.finite("threshold", threshold)
    else:
        need.ratio(keep_ratio)
    need.count_first(count_first, keep_ratio is not None, protect_first)


def pack_index(attention_mask):
    need.tensor("attention_mask", attention_mask, need.MASKS, 2)


def pack(x, attention_mask):
    pack_index(attention_mask)
    need.tensor("x", x, like=attention_mask, like_name="attention_mask")
    if x.dim() < 2:
        raise ValueError(f"x must be (B, L, ...), got shape {tuple(x.shape)}")
    for dim in (0, 1):
        if need.violated(x.shape[dim] == attention_mask.shape[dim]):
            raise ValueError(
                f"x must begin with the shape of attention_mask, {tuple(attention_mask.shape)}, got {tuple(x.shape)}"
            )


def unpack(packed, token_idx, batch, length):
    need.tensor("packed", packed)
    need.rows_exist("packed", packed)
    need.index("token_idx", token_idx, packed)
    need.length("token_idx", token_idx, packed.shape[0], "one per row of packed")
    for name, size in (("batch", batch), ("length", length)):
        if need.violated(size >= 0):
            raise ValueError(f"{name} must not be negative, got {size}")


def store_exits_(out, x, token_idx, keep_idx):
    need.tensor("x", x, dims=2)
    need.tensor("out", out, (x.dtype,), 2, x, "x")
    if not out.is_contiguous():
        raise ValueError(f"out must be contiguous, it is written in place; got strides {out.stride()}")
    if need.violated(out.shape[1] == x.shape[1]):
        raise ValueError(f"out must have the width of x, {x.shape[1]}, got shape {tuple(out.shape)}")
    need.index("token_idx", token_idx, x)
    need.length("token_idx", token_idx, x.shape[0], "one per row of x")
    need.index("keep_idx", keep_idx, x)


def add_layer_norm(x, residual, weight, bias, eps):
    need.tensor("x", x, need.floats(x), 2)
    need.tensor("residual", residual, (x.dtype,), 2, x, "x")
    need.same_shape("residual", residual, "x", x)
    for name, parameter in (("weight", weight), ("bias", bias)):
        need.tensor(name, parameter, (x.dtype,), 1, x, "x")
        need.length(name, parameter, x.shape[1], "one per column of x")
    need.eps(eps)


def pack_weight(weight):
    need.tensor("weight", weight, need.COMPILED_FLOATS, 2)
    if need.violated(weight.shape[0] > 0) or need.violated(weight.shape[1] > 0):
        raise ValueError(f"weight must be (out_features, in_features), both positive; got shape {tuple(weight.shape)}")


def packed_linear(x, weight, bias, out_features, activation=0, rows=None):
    need.tensor("x", x, need.COMPILED_FLOATS, 2)
    need.packed_weight(weight, x, out_features)
    need.activation(activation)
    if bias is not None:
        need.tensor("bias", bias, (x.dtype,), 1, x, "x")
        need.length("bias", bias, out_features, "out_features")
    if rows is not None:
        need.index("rows", rows, x)


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
    sqrt_rows=False,
    count_first=True,
):
    need.tensor("x", x, need.COMPILED_FLOATS, 2)
    need.cu_seqlens(cu_seqlens, x)
    _layers(x, weights, eps, heads, activation, scale, keep, topk, before_layer)
    need.count_first(count_first, topk, protect_first)
    need.denominators(denominators, cu_seqlens, x)
    need.protected(protected, x)
    _readout(readout, keep, protect_first)
    if readout in PLACED:
        if token_idx is None:
            raise ValueError(
                "token_idx must be given with the readouts 'all' and 'survivor_mean': it says to which row of the result a token belongs"
            )
        need.index("token_idx", token_idx, x)
        need.length("token_idx", token_idx, x.shape[0], "one per row of x")


def padded_encoder(
    x,
    attention_mask,
    weights,
    eps,
    heads,
    activation,
    scale,
    keep,
    topk,
    before_layer,
    denominator=0,
    protected=None,
    protect_first=True,
    readout=0,
    count_first=True,
):
    need.tensor("x", x, need.COMPILED_FLOATS, 3)
    pack(x, attention_mask)
    _layers(x, weights, eps, heads, activation, scale, keep, topk, before_layer)
    need.count_first(count_first, topk, protect_first)
    if denominator < -2:
        raise ValueError(f"denominator must be 0 (kept), -1 (sqrt_kept), -2 (initial) or positive, got {denominator}")
    if protected is not None:
        need.tensor("protected", protected, (torch.bool,), 2, x, "x")
        need.same_shape("protected", protected, "attention_mask", attention_mask)
    _readout(readout, keep, protect_first)


def _readout(readout, keep, protect_first):
    if readout not in READOUTS.values():
        raise ValueError(f"readout must be a code from 0 to {len(READOUTS) - 1} ({', '.join(READOUTS)}), got {readout}")
    if readout not in PLACED and keep and not protect_first:
        raise ValueError("only the readouts 'all' and 'survivor_mean' go with protect_first=False: the first tokens may be pruned")


def _layers(x, weights, eps, heads, activation, scale, keep, topk, before_layer):
    """What describes the layers, for x (..., H)."""
    layers = len(eps) // 2
    if len(eps) % 2 or len(weights) != 12 * layers:
        raise ValueError(f"weights and eps must hold 12 tensors and 2 numbers a layer, got {len(weights)} and {len(eps)}")
    hidden = x.shape[-1]
    if heads < 1 or need.violated(hidden % heads == 0):
        raise ValueError(f"heads must divide the {hidden} columns of x, got {heads}")
    for index in range(layers):
        _encoder_layer(index, weights[12 * index : 12 * index + 12], x)
    need.activation(activation)
    need.finite("scale", scale)
    for value in eps:
        need.eps(value)
    _keep_values(keep, layers, topk, before_layer)


def _encoder_layer(index, tensors, x):
    hidden, wide = x.shape[-1], tensors[7].shape[0] if isinstance(tensors[7], torch.Tensor) else 0
    shapes = ((hidden, 3 * hidden), (hidden, hidden), None, (hidden, wide), (wide, hidden), None)
    for part, shape in enumerate(shapes):
        weight, bias = tensors[2 * part : 2 * part + 2]
        name, out_features = f"weights[{12 * index + 2 * part}]", hidden if shape is None else shape[1]
        if shape is None:
            need.tensor(name, weight, (x.dtype,), 1, x, "x")
            need.length(name, weight, hidden, "one per column of x")
        else:
            need.packed_weight(weight, x, out_features, shape[0], name)
        name = f"weights[{12 * index + 2 * part + 1}]"
        need.tensor(name, bias, (x.dtype,), 1, x, "x")
        need.length(name, bias, out_features, "one per output")


def _keep_values(keep, layers, topk, before_layer):
    if keep and len(keep) != layers:
        raise ValueError(f"thresholds or keep_ratios must hold a number a layer, {layers}, got {len(keep)}")
    for value in keep:
        need.ratio(value) if topk else need.finite("threshold", value)
    if keep and before_layer and (keep[0] < 1.0 if topk else keep[0] > 0.0):
        raise ValueError("with before_layer the first layer must prune nothing: no layer has scored the tokens before it")
