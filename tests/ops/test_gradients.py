"""The ops' gradient formulas against PyTorch's own differentiation of the reference."""

import pytest
import torch

from tokprune_kernels import ops, reference
from tokprune_kernels.reference.attention import attn_importance_backward
from tokprune_kernels.reference.norm import add_layer_norm_backward

CU = torch.tensor([0, 4, 4, 5, 12], dtype=torch.int32)
TOTAL, HEADS, HEAD_DIM, SCALE = 12, 2, 8, 0.4
HIDDEN = HEADS * HEAD_DIM
IDX = torch.tensor([0, 1, 3, 4, 4, 9], dtype=torch.int32)
PLACES = torch.tensor([0, 1, 3, 4, 5, 7, 8, 10, 11, 13, 14, 15], dtype=torch.int32)
MASK = torch.zeros(16, dtype=torch.bool).index_fill(0, PLACES.long(), True).view(2, 8)
DENOMINATORS = torch.tensor([4.0, 1.0, 3.0, 9.0])


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def heads():
    return randn(TOTAL, HEADS, HEAD_DIM)


def rows():
    return randn(TOTAL, HIDDEN)


# op -> (function of an implementation and its differentiable inputs, these inputs)
CASES = {
    "attn_importance": (lambda f, q, k, v: f.attn_importance(q, k, v, CU, 7, SCALE), (heads, heads, heads)),
    "attn_importance, denominators": (
        lambda f, q, k, v: f.attn_importance(q, k, v, CU, 7, SCALE, DENOMINATORS),
        (heads, heads, heads),
    ),
    "importance alone": (lambda f, q, k, v: f.attn_importance(q, k, v, CU, 7, SCALE)[1:], (heads, heads, heads)),
    "attn_importance, token weights": (
        lambda f, q, k, v, b, r: f.attn_importance(q, k, v, CU, 7, SCALE, DENOMINATORS, b, r),
        (heads, heads, heads, lambda: randn(TOTAL), lambda: randn(TOTAL).relu()),
    ),
    "attn_importance, row weights": (
        lambda f, q, k, v, r: f.attn_importance(q, k, v, CU, 7, SCALE, row_weights=r),
        (heads, heads, heads, lambda: randn(TOTAL).relu()),
    ),
    "varlen_attention": (lambda f, q, k, v: f.varlen_attention(q, k, v, CU, 7, SCALE), (heads, heads, heads)),
    "prune_attention": (
        lambda f, q, k, v, r: f.prune_attention(q, k, v, r, CU, 7, SCALE, keep_ratio=0.5)[:3],
        (heads, heads, heads, rows),
    ),
    "prune_attention, past the first": (
        lambda f, q, k, v, r: f.prune_attention(q, k, v, r, CU, 7, SCALE, keep_ratio=0.5, count_first=False)[:3],
        (heads, heads, heads, rows),
    ),
    "prune_attention, threshold": (
        lambda f, q, k, v, r: f.prune_attention(q, k, v, r, CU, 7, SCALE, threshold=0.2, denominators=DENOMINATORS)[:3],
        (heads, heads, heads, rows),
    ),
    "compact": (lambda f, x: f.compact(x, IDX, 5), (heads,)),
    "compact_many": (lambda f, x, y: f.compact_many([x, y], IDX, 6), (heads, rows)),
    "pack": (lambda f, x: f.pack(x, MASK)[0], (lambda: randn(2, 8, 3),)),
    "unpack": (lambda f, x: f.unpack(x, PLACES, 2, 8), (rows,)),
    "add_layer_norm": (
        lambda f, x, r, w, b: f.add_layer_norm(x, r, w, b, 1e-5),
        (rows, rows, lambda: randn(HIDDEN), lambda: randn(HIDDEN)),
    ),
}


def gradients(call, implementation, inputs):
    """Gradients of a weighted sum of all outputs; the weights differ from element to element."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    outputs = call(implementation, *inputs)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    loss = sum((y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).cos().view(y.shape)).sum() for y in outputs)
    return torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("case", CASES)
def test_ops_against_the_differentiated_reference(case):
    call, make = CASES[case]
    inputs = [f() for f in make]
    expected = gradients(call, reference, inputs)
    for ours, theirs in zip(gradients(call, ops, [x.float() for x in inputs]), expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max().clamp(min=1)


@pytest.mark.parametrize("denominators", [None, DENOMINATORS], ids=["kept", "given"])
def test_attention_formula_in_float64(denominators):
    q, k, v = (heads().requires_grad_() for _ in range(3))
    outputs = reference.attn_importance(q, k, v, CU, 7, SCALE, denominators)
    grads = randn(TOTAL, HEADS, HEAD_DIM), randn(TOTAL)
    expected = torch.autograd.grad(outputs, (q, k, v), grads)
    for ours, theirs in zip(attn_importance_backward(*grads, q, k, v, CU, 7, SCALE, denominators)[:3], expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def token_weights():
    """A bias for every key and a weight for every row, some of them zero."""
    return randn(TOTAL), randn(TOTAL).relu()


@pytest.mark.parametrize("denominators", [None, DENOMINATORS], ids=["kept", "given"])
def test_attention_formula_with_token_weights_in_float64(denominators):
    inputs = [x.requires_grad_() for x in (heads(), heads(), heads(), *token_weights())]
    grads = randn(TOTAL, HEADS, HEAD_DIM), randn(TOTAL)
    expected = torch.autograd.grad(reference.attn_importance(*inputs[:3], CU, 7, SCALE, denominators, *inputs[3:]), inputs, grads)
    actual = attn_importance_backward(*grads, *inputs[:3], CU, 7, SCALE, denominators, *inputs[3:])
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


class WithFormula(torch.autograd.Function):
    """Attention with token weights, whose gradient is the formula."""

    @staticmethod
    def forward(ctx, *inputs):
        ctx.save_for_backward(*inputs)
        return reference.attn_importance(*inputs[:3], CU, 7, SCALE, None, *inputs[3:])

    @staticmethod
    def backward(ctx, *grads):
        q, k, v, *weights = ctx.saved_tensors
        return attn_importance_backward(*grads, q, k, v, CU, 7, SCALE, None, *weights)


def test_attention_formula_numerically():
    """Finite differences, of the gradients too: the formula can be differentiated again."""
    inputs = [x.requires_grad_() for x in (heads(), heads(), heads(), *token_weights())]
    inputs[4].data += 0.1  # a weight of zero is the end of its range, where differences see one side only
    assert torch.autograd.gradcheck(WithFormula.apply, inputs)
    assert torch.autograd.gradgradcheck(WithFormula.apply, inputs)


def test_norm_formula_in_float64():
    inputs = [f().requires_grad_() for f in CASES["add_layer_norm"][1]]
    grad = rows()
    x, _, weight, bias = torch.autograd.grad(reference.add_layer_norm(*inputs, 1e-5), inputs, grad)
    for ours, theirs in zip(add_layer_norm_backward(grad, *inputs, 1e-5), (x, weight, bias), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_second_derivatives_of_attention():
    """The gradient formula can be differentiated itself, as a gradient penalty does."""
    inputs = [*(heads() for _ in range(3)), *token_weights()]

    def penalty(implementation, dtype):
        q, k, v, *weights = differentiable = [x.to(dtype).requires_grad_() for x in inputs]
        context, importance = implementation.attn_importance(q, k, v, CU, 7, SCALE, None, *weights)
        loss = context.square().sum() + 5 * importance.square().sum()
        first = torch.autograd.grad(loss, differentiable, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), differentiable)

    for ours, theirs in zip(penalty(ops, torch.float32), penalty(reference, torch.float64), strict=True):
        assert (ours - theirs).abs().max() <= 2e-5 * theirs.abs().max()


def test_packed_weights_refuse_gradients():
    x = torch.randn(3, 4, requires_grad=True)
    y = ops.packed_linear(x, ops.pack_weight(torch.randn(5, 4)), None, 5)
    with pytest.raises(RuntimeError, match=r"packed weights.*torch\.nn\.functional\.linear"):
        y.sum().backward()
