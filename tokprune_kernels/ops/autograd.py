"""Gradients of the ops, in plain PyTorch on packed tensors; each can be differentiated again."""

import torch

from ..reference.attention import attn_importance_backward
from ..reference.norm import add_layer_norm_backward
from .schemas import LIBRARY, NAMESPACE


def register_gradients() -> None:
    """Register a formula for every op that can have one, and a refusal for those that serve inference only."""
    formulas = {
        "attn_importance": (_attn_importance, _save_attention),
        "varlen_attention": (_varlen_attention, _save_attention),
        "prune_attention": (_prune_attention, _save_prune_attention),
        "compact": (_compact, _save_compact),
        "compact_many": (_compact_many, _save_compact_many),
        "pack": (_pack, _save_pack),
        "unpack": (_unpack, _save_unpack),
        "add_layer_norm": (_add_layer_norm, _save_add_layer_norm),
        "packed_linear": (_refuse_packed_linear, None),
        "pack_weight": (_refuse_packed_linear, None),
        "padded_encoder": (_refuse_padded_encoder, None),
    }
    for name, (backward, setup_context) in formulas.items():
        torch.library.register_autograd(f"{NAMESPACE}::{name}", backward, setup_context=setup_context, lib=LIBRARY)


def _save_attention(ctx, inputs, output):
    q, k, v, cu_seqlens, ctx.max_seqlen, ctx.scale, *optional = inputs
    ctx.input_count = len(inputs)
    denominators, key_bias, row_weights = (*optional, None, None, None)[:3]
    ctx.save_for_backward(q, k, v, cu_seqlens, denominators, key_bias, row_weights)


def _attention_grads(ctx, grad_context, grad_importance):
    """Gradients of q, k, v, key_bias and row_weights; None for the last two where they were not given."""
    q, k, v, cu_seqlens, denominators, key_bias, row_weights = ctx.saved_tensors[:7]
    if grad_importance is None:
        grad_importance = q.new_zeros(q.shape[0], dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)
    # The op is a kernel that cannot be differentiated again; the formula can.
    double_backward = torch.is_grad_enabled()
    run = attn_importance_backward if double_backward else torch.ops.tokprune.attn_importance_backward.default
    arguments = (cu_seqlens, ctx.max_seqlen, ctx.scale, denominators, key_bias, row_weights)
    *grads, grad_key_bias, grad_row_weights = run(grad_context, grad_importance, q, k, v, *arguments)
    return (
        *grads,
        None if key_bias is None else grad_key_bias,
        None if row_weights is None else grad_row_weights,
    )


def _attn_importance(ctx, grad_context, grad_importance):
    *grads, grad_key_bias, grad_row_weights = _attention_grads(ctx, grad_context, grad_importance)
    return (*grads, *(None,) * 4, grad_key_bias, grad_row_weights)[: ctx.input_count]


def _varlen_attention(ctx, grad_context):
    return *_attention_grads(ctx, grad_context, None)[:3], None, None, None


def _save_prune_attention(ctx, inputs, output):
    q, k, v, _, cu_seqlens, ctx.max_seqlen, ctx.scale, _, _, denominators, *_ = inputs
    ctx.save_for_backward(q, k, v, cu_seqlens, denominators, None, None, output[3])


def _prune_attention(ctx, grad_context, grad_residual, grad_importance, *_):
    total, keep_idx = ctx.saved_tensors[0].shape[0], ctx.saved_tensors[7]
    grads = _attention_grads(ctx, _scatter(grad_context, keep_idx, total), grad_importance)[:3]
    return *grads, _scatter(grad_residual, keep_idx, total), *(None,) * 9


def _save_compact(ctx, inputs, output):
    x, keep_idx, total = inputs
    ctx.rows = x.shape[0]
    ctx.save_for_backward(keep_idx[:total])


def _compact(ctx, grad):
    return _scatter(grad, ctx.saved_tensors[0], ctx.rows), None, None


def _save_compact_many(ctx, inputs, output):
    xs, keep_idx, total = inputs
    ctx.rows = xs[0].shape[0]
    ctx.save_for_backward(keep_idx[:total])


def _compact_many(ctx, grads):
    return [None if grad is None else _scatter(grad, ctx.saved_tensors[0], ctx.rows) for grad in grads], None, None


def _save_pack(ctx, inputs, output):
    ctx.size = inputs[0].shape[:2]
    ctx.save_for_backward(output[2])


def _pack(ctx, grad, *_):
    batch, length = ctx.size
    return _scatter(grad, ctx.saved_tensors[0], batch * length).unflatten(0, (batch, length)), None


def _save_unpack(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])


def _unpack(ctx, grad):
    return grad.flatten(0, 1).index_select(0, ctx.saved_tensors[0]), None, None, None


def _save_add_layer_norm(ctx, inputs, output):
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _add_layer_norm(ctx, grad):
    grad_x, grad_weight, grad_bias = add_layer_norm_backward(grad, *ctx.saved_tensors, ctx.eps)
    return grad_x, grad_x, grad_weight, grad_bias, None


def _scatter(grad, idx, rows):
    """The gradient of `x[idx]` for x with that many rows; an index may occur twice (capacity forms)."""
    return grad.new_zeros(rows, *grad.shape[1:]).index_add(0, idx, grad)


def _refuse_packed_linear(ctx, *grads):
    raise RuntimeError(
        "packed weights are for inference and have no gradient: use torch.nn.functional.linear where gradients are needed"
    )


def _refuse_padded_encoder(ctx, *grads):
    raise RuntimeError("an exported encoder is for inference and has no gradient: train the model that was exported")
