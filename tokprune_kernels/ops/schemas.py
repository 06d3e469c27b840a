"""The ops' schemas, each beside its fake kernel, which gives tracing the outputs' shapes and dtypes.

Kernels are registered elsewhere: the compiled extension and `registration` (CPU). Row counts that depend on data are
fresh symbolic sizes here, and T in the capacity forms.
"""

import torch

from ..reference.encoder import PLACED
from . import checks
from .needs import packed_shape

NAMESPACE = "tokprune"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")

# The ops that every device brings kernels for.
NAMES: list[str] = []


def _define(signature):
    """Decorator: define the op, with the decorated function as its fake kernel, named as the op."""

    def register(fake):
        name = fake.__name__
        LIBRARY.define(name + signature, tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=LIBRARY)
        NAMES.append(name)
        return fake

    return register


def _unknown_size():
    return torch.library.get_ctx().new_dynamic_size()


def _scores(q):
    """(T,) importance: float32, float64 for float64."""
    return q.new_empty(q.shape[0], dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)


@_define(
    "(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, SymInt max_seqlen, float scale, Tensor? denominators=None,"
    " Tensor? key_bias=None, Tensor? row_weights=None) -> (Tensor, Tensor)"
)
def attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators=None, key_bias=None, row_weights=None):
    checks.attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, denominators, key_bias, row_weights)
    return q.new_empty(q.shape), _scores(q)


@_define(
    "(Tensor grad_context, Tensor grad_importance, Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, SymInt max_seqlen,"
    " float scale, Tensor? denominators=None, Tensor? key_bias=None, Tensor? row_weights=None)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
def attn_importance_backward(
    grad_context, grad_importance, q, k, v, cu_seqlens, max_seqlen, scale, denominators=None, key_bias=None, row_weights=None
):
    checks.attn_importance_backward(
        grad_context, grad_importance, q, k, v, cu_seqlens, max_seqlen, scale, denominators, key_bias, row_weights
    )
    return *(q.new_empty(q.shape) for _ in range(3)), _scores(q), _scores(q)


@_define("(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, SymInt max_seqlen, float scale) -> Tensor")
def varlen_attention(q, k, v, cu_seqlens, max_seqlen, scale):
    checks.varlen_attention(q, k, v, cu_seqlens, max_seqlen, scale)
    return q.new_empty(q.shape)


@_define(
    "(Tensor importance, Tensor cu_seqlens, float threshold, Tensor? protected=None, bool protect_first=True,"
    " bool capacity=False) -> (Tensor, Tensor)"
)
def keep_threshold(importance, cu_seqlens, threshold, protected=None, protect_first=True, capacity=False):
    checks.keep_threshold(importance, cu_seqlens, threshold, protected, protect_first, capacity)
    rows = importance.shape[0] if capacity else _unknown_size()
    return cu_seqlens.new_empty(rows), cu_seqlens.new_empty(cu_seqlens.shape)


@_define(
    "(Tensor importance, Tensor cu_seqlens, float keep_ratio, Tensor? protected=None, bool protect_first=True,"
    " bool capacity=False, bool count_first=True) -> (Tensor, Tensor)"
)
def keep_topk(importance, cu_seqlens, keep_ratio, protected=None, protect_first=True, capacity=False, count_first=True):
    checks.keep_topk(importance, cu_seqlens, keep_ratio, protected, protect_first, capacity, count_first)
    rows = importance.shape[0] if capacity else _unknown_size()
    return cu_seqlens.new_empty(rows), cu_seqlens.new_empty(cu_seqlens.shape)


@_define("(Tensor x, Tensor keep_idx, SymInt total) -> Tensor")
def compact(x, keep_idx, total):
    checks.compact(x, keep_idx, total)
    return x.new_empty((total, *x.shape[1:]))


@_define("(Tensor[] xs, Tensor keep_idx, SymInt total) -> Tensor[]")
def compact_many(xs, keep_idx, total):
    checks.compact_many(xs, keep_idx, total)
    return [x.new_empty((total, *x.shape[1:])) for x in xs]


@_define(
    "(Tensor q, Tensor k, Tensor v, Tensor residual, Tensor cu_seqlens, SymInt max_seqlen, float scale,"
    " float? threshold=None, float? keep_ratio=None, Tensor? denominators=None, Tensor? protected=None,"
    " bool protect_first=True, bool count_first=True) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
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


@_define("(Tensor attention_mask) -> (Tensor, Tensor, Tensor)")
def pack_index(attention_mask):
    checks.pack_index(attention_mask)
    live = _unknown_size()
    sizes = (live, attention_mask.shape[0] + 1, live)
    return tuple(attention_mask.new_empty(size, dtype=torch.int32) for size in sizes)


@_define("(Tensor x, Tensor attention_mask) -> (Tensor, Tensor, Tensor)")
def pack(x, attention_mask):
    checks.pack(x, attention_mask)
    live = _unknown_size()
    cu_seqlens = x.new_empty(attention_mask.shape[0] + 1, dtype=torch.int32)
    return x.new_empty((live, *x.shape[2:])), cu_seqlens, x.new_empty(live, dtype=torch.int32)


@_define("(Tensor packed, Tensor token_idx, SymInt batch, SymInt length) -> Tensor")
def unpack(packed, token_idx, batch, length):
    checks.unpack(packed, token_idx, batch, length)
    return packed.new_empty((batch, length, *packed.shape[1:]))


@_define("(Tensor(a!) out, Tensor x, Tensor token_idx, Tensor keep_idx) -> ()")
def store_exits_(out, x, token_idx, keep_idx):
    checks.store_exits_(out, x, token_idx, keep_idx)


@_define("(Tensor x, Tensor residual, Tensor weight, Tensor bias, float eps) -> Tensor")
def add_layer_norm(x, residual, weight, bias, eps):
    checks.add_layer_norm(x, residual, weight, bias, eps)
    return x.new_empty(x.shape)


@_define("(Tensor weight) -> Tensor")
def pack_weight(weight):
    checks.pack_weight(weight)
    return weight.new_empty(packed_shape(*weight.shape, weight.dtype))


@_define(
    "(Tensor x, Tensor weight, Tensor? bias, SymInt out_features, int activation=0, Tensor? rows=None) -> Tensor"
)
def packed_linear(x, weight, bias, out_features, activation=0, rows=None):
    checks.packed_linear(x, weight, bias, out_features, activation, rows)
    return x.new_empty((x.shape[0] if rows is None else rows.shape[0], out_features))


@_define(
    "(Tensor x, Tensor cu_seqlens, SymInt max_seqlen, Tensor[] weights, float[] eps, int heads, int activation, float scale,"
    " float[] keep, bool topk, bool before_layer, Tensor? denominators=None, Tensor? protected=None,"
    " bool protect_first=True, int readout=0, Tensor? token_idx=None, SymInt places=0,"
    " bool sqrt_rows=False, bool count_first=True) -> Tensor"
)
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
