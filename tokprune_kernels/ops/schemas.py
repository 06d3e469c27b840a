"""The ops' schemas and, for each, its fake kernel, which gives tracing the outputs' shapes and dtypes.

The schemas are in schemas.txt, which the compiled library is built with: it defines the ops where it is loaded, Python where it is
not. Kernels are registered elsewhere: the compiled extension and `registration` (CPU). Row counts that depend on data are
fresh symbolic sizes here, and T in the capacity forms.
"""

from pathlib import Path

import torch

from .._extension import extension_status
from ..reference.encoder import PLACED
from . import checks
from .needs import packed_shape

NAMESPACE = "tokprune"
FILE = Path(__file__).with_name("schemas.txt")


def _read() -> dict[str, str]:
    """name -> schema. The first and last line of the file make it one string literal of C++."""
    lines = FILE.read_text().strip().split("\n")[1:-1]
    schemas = [" ".join(schema.split()) for schema in "\n".join(lines).split("\n\n")]
    return {schema.partition("(")[0]: schema for schema in schemas}


# In the order of the file: the ops that every device brings kernels for.
SCHEMAS = _read()
NAMES = list(SCHEMAS)
LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")

extension_status()  # loads the compiled library, if there is one, before the ops are looked for
DEFINED_HERE = [name for name in NAMES if not hasattr(getattr(torch.ops, NAMESPACE), name)]
for _name in DEFINED_HERE:
    LIBRARY.define(SCHEMAS[_name], tags=(torch.Tag.pt2_compliant_tag,))


def differing() -> list[str]:
    """The ops that were defined with another schema than the file's: by a library built from other sources."""
    ops = getattr(torch.ops, NAMESPACE)
    return [
        name
        for name, schema in SCHEMAS.items()
        if getattr(ops, name).default._schema != torch._C.parse_schema(f"{NAMESPACE}::{schema}")
    ]


def _fake(function):
    """Decorator: the fake kernel of the op of the function's name."""
    torch.library.register_fake(f"{NAMESPACE}::{function.__name__}", function, lib=LIBRARY)
    return function


def _unknown_size():
    return torch.library.get_ctx().new_dynamic_size()


def _scores(q):
    """(T,) importance: float32, float64 for float64."""
    return q.new_empty(q.shape[0], dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)


@_fake
def attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators=None, key_bias=None, row_weights=None):
    checks.attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators, key_bias, row_weights)
    return q.new_empty(q.shape), _scores(q)


@_fake
def attn_importance_backward(
    grad_context, grad_importance, q, k, v, cu_seqlens, max_seqlen, scale, denominators=None, key_bias=None, row_weights=None
):
    checks.attn_importance_backward(
        grad_context, grad_importance, q, k, v, cu_seqlens, max_seqlen, scale, denominators, key_bias, row_weights
    )
    return *(q.new_empty(q.shape) for _ in range(3)), _scores(q), _scores(q)


@_fake
def varlen_attention(q, k, v, cu_seqlens, max_seqlen, scale):
    checks.varlen_attention(q, k, v, cu_seqlens, max_seqlen, scale)
    return q.new_empty(q.shape)


@_fake
def keep_threshold(importance, cu_seqlens, threshold, protected=None, protect_first=True, capacity=False):
    checks.keep_threshold(importance, cu_seqlens, threshold, protected, protect_first, capacity)
    rows = importance.shape[0] if capacity else _unknown_size()
    return cu_seqlens.new_empty(rows), cu_seqlens.new_empty(cu_seqlens.shape)


@_fake
def keep_topk(importance, cu_seqlens, keep_ratio, protected=None, protect_first=True, capacity=False, count_first=True):
    checks.keep_topk(importance, cu_seqlens, keep_ratio, protected, protect_first, capacity, count_first)
    rows = importance.shape[0] if capacity else _unknown_size()
    return cu_seqlens.new_empty(rows), cu_seqlens.new_empty(cu_seqlens.shape)


@_fake
def compact(x, keep_idx, total):
    checks.compact(x, keep_idx, total)
    return x.new_empty((total, *x.shape[1:]))


@_fake
def compact_many(xs, keep_idx, total):
    checks.compact_many(xs, keep_idx, total)
    return [x.new_empty((total, *x.shape[1:])) for x in xs]


@_fake
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
    rule = (threshold, keep_ratio, denominators, protected, protect_first, count_first)
    checks.prune_attention(q, k, v, residual, cu_seqlens, max_seqlen, scale, *rule)
    kept = _unknown_size()
    context, residual = q.new_empty((kept, *q.shape[1:])), residual.new_empty((kept, residual.shape[1]))
    return context, residual, _scores(q), cu_seqlens.new_empty(kept), cu_seqlens.new_empty(cu_seqlens.shape)


@_fake
def pack_index(attention_mask):
    checks.pack_index(attention_mask)
    live = _unknown_size()
    sizes = (live, attention_mask.shape[0] + 1, live)
    return tuple(attention_mask.new_empty(size, dtype=torch.int32) for size in sizes)


@_fake
def pack(x, attention_mask):
    checks.pack(x, attention_mask)
    live = _unknown_size()
    cu_seqlens = x.new_empty(attention_mask.shape[0] + 1, dtype=torch.int32)
    return x.new_empty((live, *x.shape[2:])), cu_seqlens, x.new_empty(live, dtype=torch.int32)


@_fake
def unpack(packed, token_idx, batch, length):
    checks.unpack(packed, token_idx, batch, length)
    return packed.new_empty((batch, length, *packed.shape[1:]))


@_fake
def store_exits_(out, x, token_idx, keep_idx):
    checks.store_exits_(out, x, token_idx, keep_idx)


@_fake
def add_layer_norm(x, residual, weight, bias, eps):
    checks.add_layer_norm(x, residual, weight, bias, eps)
    return x.new_empty(x.shape)


@_fake
def pack_weight(weight):
    checks.pack_weight(weight)
    return weight.new_empty(packed_shape(*weight.shape, weight.dtype))


@_fake
def packed_linear(x, weight, bias, out_features, activation=0, rows=None):
    checks.packed_linear(x, weight, bias, out_features, activation, rows)
    return x.new_empty((x.shape[0] if rows is None else rows.shape[0], out_features))


@_fake
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
    options = (denominators, protected, protect_first, readout, token_idx, places, sqrt_rows, count_first)
    checks.encoder(
        x, cu_seqlens, max_seqlen, weights, eps, heads, activation, scale, keep, topk, before_layer, *options
    )
    return x.new_empty((places if readout in PLACED else cu_seqlens.shape[0] - 1, x.shape[1]))


@_fake
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
    options = (denominator, protected, protect_first, readout, count_first)
    checks.padded_encoder(x, attention_mask, weights, eps, heads, activation, scale, keep, topk, before_layer, *options)
    return x.new_empty(x.shape if readout in PLACED else (x.shape[0], x.shape[2]))
