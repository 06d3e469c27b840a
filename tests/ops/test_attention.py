"""Attention and importance: what the general tests cannot see."""

import pytest
import torch

from tokprune_kernels import ops, reference

from .samples import BATCHES, COMPILED_ONLY, RAGGED, cu_seqlens_of, qkv

DTYPES = pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=("fp32", "bf16"))


@DTYPES
@pytest.mark.parametrize("head_dim", (32, 64, 40))
def test_batch_companions_do_not_change_a_bit(dtype, head_dim):
    lengths = (*RAGGED, 390, 200)
    q, k, v = qkv(lengths, 4, head_dim, dtype)
    together = ops.attn_importance(q, k, v, cu_seqlens_of(lengths), max(lengths), 0.2)
    start = 0
    for length in lengths:
        rows = slice(start, start + length)
        alone = ops.attn_importance(q[rows], k[rows], v[rows], cu_seqlens_of([length]), length, 0.2)
        for a, b in zip(alone, together, strict=True):
            assert torch.equal(a, b[rows]), f"length {length}"
        start += length


@DTYPES
def test_importance_sums_to_one_per_sequence(dtype):
    q, k, v = qkv(RAGGED, dtype=dtype)
    _, importance = ops.attn_importance(q, k, v, cu_seqlens_of(RAGGED), max(RAGGED), 0.2)
    sums = [float(part.sum()) for part in importance.split(RAGGED)]
    assert sums == pytest.approx([float(length > 0) for length in RAGGED], abs=1e-5)


@DTYPES
def test_context_is_the_same_with_and_without_importance(dtype):
    q, k, v = qkv(RAGGED, dtype=dtype)
    args = (q, k, v, cu_seqlens_of(RAGGED), max(RAGGED), 0.2)
    assert torch.equal(ops.varlen_attention(*args), ops.attn_importance(*args)[0])


def test_agrees_with_scaled_dot_product_attention():
    q, k, v = qkv([50, 50], heads=12, head_dim=64)
    padded = [x.unflatten(0, (2, 50)).transpose(1, 2) for x in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*padded).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(ops.varlen_attention(q, k, v, cu_seqlens_of([50, 50]), 50, 0.125), expected)


def test_nan_stays_in_its_sequence_and_head():
    q, k, v = (x.clone() for x in qkv([20, 20]))
    q[3, 1, 0] = float("nan")
    context, importance = ops.attn_importance(q, k, v, cu_seqlens_of([20, 20]), 20, 0.2)
    assert context[3, 1].isnan().all() and context[3, 0].isfinite().all()
    assert context[20:].isfinite().all() and importance[20:].isfinite().all()
    assert importance[:20].isnan().all()


def test_very_negative_scores_do_not_underflow_to_nothing():
    q, k, v = qkv([5])
    q, k = torch.full_like(q, -30.0), torch.full_like(k, 30.0)
    context, importance = ops.attn_importance(q, k, v, cu_seqlens_of([5]), 5, 1.0)
    torch.testing.assert_close(context, v.mean(0, keepdim=True).expand_as(context))
    torch.testing.assert_close(importance, torch.full((5,), 0.2))


def test_layouts_other_than_fused_are_copied():
    q, k, v = qkv([30, 9])
    expected = ops.varlen_attention(q, k, v, cu_seqlens_of([30, 9]), 30, 0.2)
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (q, k, v)]
    assert torch.equal(ops.varlen_attention(*turned, cu_seqlens_of([30, 9]), 30, 0.2), expected)


@pytest.mark.parametrize("name", sorted(set(BATCHES) - {"no_sequences"}))
def test_gradients(name):
    lengths = [min(length, 9) for length in BATCHES[name]]
    q, k, v = (x.double().detach().requires_grad_() for x in qkv(lengths, 2, 8))
    denominators = torch.arange(1.0, len(lengths) + 1)

    def function(q, k, v):
        return reference.attn_importance(q, k, v, cu_seqlens_of(lengths), 9, 0.3, denominators)

    expected = torch.autograd.grad(sum((x * (i + 1) ** 2).sum() for i, x in enumerate(function(q, k, v))), (q, k, v))
    single = [x.detach().float().requires_grad_() for x in (q, k, v)]
    outputs = ops.attn_importance(*single, cu_seqlens_of(lengths), 9, 0.3, denominators)
    actual = torch.autograd.grad(sum((x * (i + 1) ** 2).sum() for i, x in enumerate(outputs)), single)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.double(), e, rtol=1e-4, atol=1e-5)


def arguments(**changes):
    q, k, v = qkv([4, 6])
    return {"q": q, "k": k, "v": v, "cu_seqlens": cu_seqlens_of([4, 6]), "max_seqlen": 6, "scale": 0.2} | changes


BAD = {
    "q dtype": ({"q": torch.zeros(10, 3, 32, dtype=torch.int64)}, TypeError, "q"),
    "k dtype": ({"k": torch.zeros(10, 3, 32, dtype=torch.bfloat16)}, TypeError, "k"),
    "k shape": ({"k": torch.zeros(10, 3, 40)}, ValueError, "k"),
    "v rows": ({"v": torch.zeros(9, 3, 32)}, ValueError, "v"),
    "q dims": ({"q": torch.zeros(10, 96)}, ValueError, "q"),
    "cu_seqlens dtype": ({"cu_seqlens": torch.tensor([0, 4, 10])}, TypeError, "cu_seqlens"),
    "cu_seqlens falls": ({"cu_seqlens": torch.tensor([0, 11, 10], dtype=torch.int32), "max_seqlen": 99}, ValueError, "cu_seqlens"),
    "cu_seqlens end": ({"cu_seqlens": torch.tensor([0, 4, 9], dtype=torch.int32)}, ValueError, "cu_seqlens"),
    "cu_seqlens start": ({"cu_seqlens": torch.tensor([1, 4, 10], dtype=torch.int32)}, ValueError, "cu_seqlens"),
    "cu_seqlens negative": ({"cu_seqlens": torch.tensor([0, -4, 10], dtype=torch.int32), "max_seqlen": 99}, ValueError, "cu_seqlens"),
    "cu_seqlens empty": ({"cu_seqlens": torch.zeros(0, dtype=torch.int32)}, ValueError, "cu_seqlens"),
    "max_seqlen": ({"max_seqlen": 5}, ValueError, "max_seqlen"),
    "scale": ({"scale": float("nan")}, ValueError, "scale"),
    "denominators size": ({"denominators": torch.ones(3)}, ValueError, "denominators"),
    "denominators zero": ({"denominators": torch.zeros(2)}, ValueError, "denominators"),
    "denominators nan": ({"denominators": torch.full((2,), float("nan"))}, ValueError, "denominators"),
    "denominators dtype": ({"denominators": torch.ones(2, dtype=torch.int32)}, TypeError, "denominators"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_names_the_argument(case):
    changes, error, name = BAD[case]
    with pytest.raises(error, match=name):
        ops.attn_importance(**arguments(**changes))


@pytest.mark.parametrize("case", BAD)
def test_bad_input_to_the_raw_op_is_a_value_error_too(case):
    changes, _, name = BAD[case]
    with pytest.raises((ValueError, TypeError), match=name):
        torch.ops.tokprune.attn_importance(**arguments(**changes))


@COMPILED_ONLY
@pytest.mark.parametrize("head_dim", (4, 12, 264))
def test_head_dims_without_a_kernel_are_refused(head_dim):
    q, k, v = qkv([4], 2, head_dim)
    with pytest.raises(ValueError, match="head_dim"):
        torch.ops.tokprune.attn_importance(q, k, v, cu_seqlens_of([4]), 4, 0.2)
