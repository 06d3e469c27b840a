"""A whole pruned encoder on packed tokens, layer after layer."""

from functools import partial

import torch

from .attention import attn_importance, square_roots
from .decision import keep_threshold, keep_topk
from .gather import compact, store_exits_
from .linear import packed_linear
from .norm import add_layer_norm

# Codes of the op's `readout` argument.
READOUTS = {"all": 0, "first": 1, "first_only": 2, "survivor_mean": 3}
# Those whose result has a row for every place, not for every sequence.
PLACED = (READOUTS["all"], READOUTS["survivor_mean"])

# Tensors of one layer, in this order in `weights`.
LAYER_WEIGHTS = (
    "qkv", "qkv_bias", "attention_out", "attention_out_bias", "norm_attention", "norm_attention_bias",
    "up", "up_bias", "down", "down_bias", "norm_output", "norm_output_bias",
)  # fmt: skip


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
    """Last states of the tokens at their places (places, H), or of each sequence's first token (B, H); zeros elsewhere."""
    hidden, wide = x.shape[1], [bias.shape[0] for bias in weights[7 :: len(LAYER_WEIGHTS)]]
    importance, out = None, x.new_zeros(places, hidden) if readout in PLACED else None
    entered, entered_bounds = token_idx, cu_seqlens
    decide = partial(keep_topk, count_first=count_first) if topk else keep_threshold
    for index, width in enumerate(wide):
        start = index * len(LAYER_WEIGHTS)
        part = dict(zip(LAYER_WEIGHTS, weights[start : start + len(LAYER_WEIGHTS)], strict=True))
        prunes = bool(keep) and (keep[index] < 1.0 if topk else keep[index] > 0.0)

        def stay(index=index):
            """Who stays by the last importance; those who leave are stored."""
            keep_idx, bounds = decide(importance, cu_seqlens, keep[index], protected, protect_first)
            if out is not None:
                store_exits_(out, x, token_idx, keep_idx)
            kept = [None if t is None else compact(t, keep_idx, len(keep_idx)) for t in (x, token_idx, protected)]
            return keep_idx, bounds, *kept

        if prunes and before_layer:
            _, cu_seqlens, x, token_idx, protected = stay()
        qkv = packed_linear(x, part["qkv"], part["qkv_bias"], 3 * hidden)
        q, k, v = qkv.unflatten(1, (3, heads, hidden // heads)).unbind(1)
        given = square_roots(cu_seqlens) if sqrt_rows and denominators is None else denominators
        context, importance = attn_importance(q, k, v, cu_seqlens, max_seqlen, scale, given)
        if prunes and not before_layer:
            keep_idx, cu_seqlens, x, token_idx, protected = stay()
            context = compact(context, keep_idx, len(keep_idx))
        attended = packed_linear(context.flatten(1), part["attention_out"], part["attention_out_bias"], hidden)
        x = add_layer_norm(attended, x, part["norm_attention"], part["norm_attention_bias"], eps[2 * index])
        up = packed_linear(x, part["up"], part["up_bias"], width, activation)
        down = packed_linear(up, part["down"], part["down_bias"], hidden)
        x = add_layer_norm(down, x, part["norm_output"], part["norm_output_bias"], eps[2 * index + 1])
    if readout == READOUTS["survivor_mean"]:
        store_means_(out, x, cu_seqlens, entered, entered_bounds)
    if out is not None:
        store_exits_(out, x, token_idx, token_idx[:0])
        return out
    live = cu_seqlens.diff() > 0
    out = x.new_zeros(live.shape[0], hidden)
    out[live] = x[cu_seqlens[:-1][live]]
    return out


def survivor_means(x, cu_seqlens):
    """(B, H) in x's dtype: the mean of each sequence's rows of x (T, H), summed in float32 at least; zeros for an empty one."""
    lengths = cu_seqlens.diff().long()
    texts = torch.repeat_interleave(torch.arange(lengths.shape[0], device=x.device), lengths)
    wide = torch.promote_types(x.dtype, torch.float32)
    sums = x.new_zeros(lengths.shape[0], x.shape[1], dtype=wide).index_add(0, texts, x.to(wide))
    return (sums / lengths.clamp(min=1)[:, None]).to(x.dtype)


def store_means_(out, x, cu_seqlens, token_idx, bounds):
    """Fill the rows token_idx (T0,) of out, which belong to sequences with these bounds, with the means of what is left of them."""
    out[token_idx.long()] = survivor_means(x, cu_seqlens).repeat_interleave(bounds.diff().long(), dim=0)
