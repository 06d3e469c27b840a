"""Token weights in attention: key_bias and row_weights of `attn_importance`. Their samples run in the tests of every op."""

import pytest
import torch

from tokprune_kernels import ops, reference

from .samples import BATCHES, COMPILED_ONLY, RAGGED, cu_seqlens_of, qkv, randn, token_weights

DTYPES = pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=("fp32", "bf16"))


def arguments(lengths, dtype=torch.float32, head_dim=32):
    return *qkv(lengths, 3, head_dim, dtype), cu_seqlens_of(lengths), max(lengths, default=0), 0.2


def assert_equal(results, expected, context=""):
    for a, b in zip(results, expected, strict=True):
        assert torch.equal(a, b), context


@DTYPES
@pytest.mark.parametrize("name", sorted(set(BATCHES) - {"no_sequences"}))
def test_the_limit_is_removal(name, dtype):
    """Keys out of reach and rows that do not count leave the others what they are once the tokens are really gone."""
    lengths = BATCHES[name]
    q, k, v, cu_seqlens, longest, scale = arguments(lengths, dtype)
    kept = torch.rand(sum(lengths)) < 0.6
    kept[cu_seqlens[:-1][cu_seqlens.diff() > 0]] = True  # of each text at least one
    left = [int(part.sum()) for part in kept.split(lengths)]
    denominators = torch.tensor(left, dtype=torch.float32).clamp(min=1.0)
    soft, soft_scores = ops.attn_importance(
        q, k, v, cu_seqlens, longest, scale, denominators, key_bias=(~kept) * -1e4, row_weights=kept.float()
    )
    hard, hard_scores = ops.attn_importance(q[kept], k[kept], v[kept], cu_seqlens_of(left), longest, scale)
    tolerance = 2e-6 if dtype == torch.float32 else 1.6e-2
    torch.testing.assert_close(soft[kept], hard, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(soft_scores[kept], hard_scores, rtol=2e-6, atol=2e-6)
    assert not soft_scores[~kept].any(), "a key out of reach receives nothing"


def test_a_weight_is_that_many_copies_of_a_key():
    """key_bias = log w counts a key w times, row_weights = w its row."""
    q, k, v = qkv([6])
    counts = torch.tensor([1, 3, 1, 2, 1, 5])
    copies = torch.arange(6).repeat_interleave(counts)
    denominators = torch.tensor([float(counts.sum())])
    weighted, weighted_scores = ops.attn_importance(
        q, k, v, cu_seqlens_of([6]), 6, 0.2, denominators, counts.log(), counts.float()
    )
    copied, copied_scores = ops.attn_importance(q[copies], k[copies], v[copies], cu_seqlens_of([13]), 13, 0.2)
    torch.testing.assert_close(weighted[copies], copied)
    torch.testing.assert_close(weighted_scores, torch.zeros(6).index_add(0, copies, copied_scores))


@pytest.mark.parametrize("bias", (-1e4, -3e38, 1e4, 3e38))
def test_a_bias_that_all_keys_share_changes_nothing(bias):
    args = arguments(RAGGED)
    shared = ops.attn_importance(*args, key_bias=torch.full((sum(RAGGED),), bias))
    for a, b in zip(shared, ops.attn_importance(*args), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_very_different_biases_leave_the_keys_of_the_largest():
    q, k, v = qkv([20])
    key_bias = torch.full((20,), -3e38)
    key_bias[[2, 19]] = 3e38
    context, importance = ops.attn_importance(q, k, v, cu_seqlens_of([20]), 20, 0.2, key_bias=key_bias)
    pair = torch.einsum("qhd,khd->hqk", q, k[[2, 19]]).mul(0.2).softmax(-1)
    torch.testing.assert_close(context, torch.einsum("hqk,khd->qhd", pair, v[[2, 19]]))
    torch.testing.assert_close(importance[[2, 19]], pair.mean((0, 1)))
    assert int((importance > 0).sum()) == 2


@COMPILED_ONLY
@DTYPES
def test_neutral_weights_are_the_bits_without_them(dtype):
    """Row weights of one; and a context that has nothing to do with row weights at all."""
    args = arguments(RAGGED, dtype)
    plain = ops.attn_importance(*args)
    key_bias, row_weights = token_weights(RAGGED)
    assert_equal(ops.attn_importance(*args, row_weights=torch.ones(sum(RAGGED))), plain)
    assert torch.equal(ops.attn_importance(*args, row_weights=row_weights)[0], plain[0])
    biased = ops.attn_importance(*args, key_bias=key_bias)[0]
    assert torch.equal(ops.attn_importance(*args, key_bias=key_bias, row_weights=row_weights)[0], biased)


@COMPILED_ONLY
@DTYPES
@pytest.mark.parametrize("head_dim", (64, 40))
def test_batch_companions_do_not_change_a_bit(dtype, head_dim):
    lengths = (*RAGGED, 390, 200)
    q, k, v, cu_seqlens, longest, scale = arguments(lengths, dtype, head_dim)
    weights = token_weights(lengths)
    together = ops.attn_importance(q, k, v, cu_seqlens, longest, scale, None, *weights)
    start = 0
    for length in lengths:
        rows = slice(start, start + length)
        own = [x[rows] for x in weights]
        alone = ops.attn_importance(q[rows], k[rows], v[rows], cu_seqlens_of([length]), length, scale, None, *own)
        assert_equal(alone, [x[rows] for x in together], f"length {length}")
        start += length


def test_strided_weights_are_read_as_they_are_meant():
    args = arguments(RAGGED)
    both = torch.stack(token_weights(RAGGED), 1)
    dense = ops.attn_importance(*args, key_bias=both[:, 0].contiguous(), row_weights=both[:, 1].contiguous())
    assert_equal(ops.attn_importance(*args, key_bias=both[:, 0], row_weights=both[:, 1]), dense)


def test_by_hand():
    """One head, two tokens, scores 0: weights 3 and 1 give probabilities 3/4 and 1/4 in both rows; the rows count 1 and 5."""
    q = torch.zeros(2, 1, 8, dtype=torch.float64)
    v = torch.tensor([[4.0], [8.0]], dtype=torch.float64)[:, None].expand(2, 1, 8)
    key_bias = torch.tensor([3.0, 1.0], dtype=torch.float64).log()
    row_weights = torch.tensor([1.0, 5.0], dtype=torch.float64)
    context, importance = reference.attn_importance(q, q, v, cu_seqlens_of([2]), 2, 1.0, None, key_bias, row_weights)
    torch.testing.assert_close(context, torch.full_like(context, 5.0))
    torch.testing.assert_close(importance, torch.tensor([2.25, 0.75], dtype=torch.float64))


def with_entry(value, place=4):
    weights = torch.ones(10)
    weights[place] = value
    return weights


BAD = {
    "key_bias dtype": ({"key_bias": torch.zeros(10, dtype=torch.float64)}, TypeError, "key_bias"),
    "key_bias size": ({"key_bias": torch.zeros(9)}, ValueError, "key_bias.* 10"),
    "key_bias dims": ({"key_bias": torch.zeros(10, 1)}, ValueError, "key_bias"),
    "key_bias type": ({"key_bias": 0.5}, TypeError, "key_bias"),
    "key_bias device": ({"key_bias": torch.zeros(10, device="meta")}, ValueError, "key_bias"),
    "key_bias -inf": ({"key_bias": with_entry(-float("inf"))}, ValueError, "key_bias: entry 4 is -inf.*-1e4"),
    "key_bias nan": ({"key_bias": with_entry(float("nan"), 9)}, ValueError, "key_bias: entry 9 is nan"),
    "row_weights dtype": ({"row_weights": torch.zeros(10, dtype=torch.bfloat16)}, TypeError, "row_weights"),
    "row_weights size": ({"row_weights": torch.zeros(2)}, ValueError, "row_weights.* 10"),
    "row_weights dims": ({"row_weights": torch.zeros(3, 10)}, ValueError, "row_weights"),
    "row_weights type": ({"row_weights": [1.0] * 10}, TypeError, "row_weights"),
    "row_weights negative": ({"row_weights": with_entry(-1e-9)}, ValueError, "row_weights: entry 4 is -.*not negative"),
    "row_weights inf": ({"row_weights": with_entry(float("inf"))}, ValueError, "row_weights: entry 4 is inf"),
    "row_weights nan": ({"row_weights": with_entry(float("nan"))}, ValueError, "row_weights: entry 4 is nan"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_says_what_is_wrong(case):
    changes, error, message = BAD[case]
    with pytest.raises(error, match=message):
        ops.attn_importance(*arguments([4, 6]), **changes)


@pytest.mark.parametrize("case", [case for case in BAD if not case.endswith(("type", "device"))])
def test_bad_input_to_the_raw_op_too(case):
    changes, error, _ = BAD[case]
    with pytest.raises((error, ValueError), match=next(iter(changes))):
        torch.ops.tokprune.attn_importance(*arguments([4, 6]), **changes)


def test_float64_takes_float64_weights():
    """Where the reference runs; the compiled kernels refuse float64 itself."""
    args = arguments([4, 6])
    wide = [x.double() for x in args[:3]]
    weights = [randn(10).double(), torch.ones(10).double()]
    context, importance = reference.attn_importance(*wide, *args[3:], None, *weights)
    assert context.dtype == importance.dtype == torch.float64
    narrow = ops.attn_importance(*args, None, *(x.float() for x in weights))
    for a, b in zip(narrow, (context, importance), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)
