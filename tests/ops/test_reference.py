"""The reference against small cases worked out by hand: it is the oracle of the kernels, so it needs its own proof."""

import math

import pytest
import torch
from torch import tensor

from tokprune_kernels import reference

NAN = float("nan")
CU_2_0_3 = tensor([0, 2, 2, 5], dtype=torch.int32)  # two rows, none, three


def int32(*values):
    return tensor(values, dtype=torch.int32)


def one_hot_attention(dtype=torch.float64):
    """One head, d = 2, two sequences. Attention probabilities, by hand, with scale 1:

    rows 0, 1: q = (ln 3, 0), (0, 0) on k = (1, 0), (0, 0) -> (3/4, 1/4), (1/2, 1/2)
    rows 2, 3, 4: q = 0 -> 1/3 everywhere
    """
    q = torch.zeros(5, 1, 2, dtype=dtype)
    k = torch.zeros(5, 1, 2, dtype=dtype)
    q[0, 0, 0], k[0, 0, 0] = math.log(3), 1.0
    v = tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 3.0], [6.0, 9.0]], dtype=dtype)[:, None]
    return q, k, v


def test_attention_by_hand():
    context, importance = reference.attn_importance(*one_hot_attention(), CU_2_0_3, 3, 1.0)
    expected = tensor([[0.75, 0.25], [0.5, 0.5], [3.0, 4.0], [3.0, 4.0], [3.0, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(context[:, 0], expected)
    third = 1 / 3
    torch.testing.assert_close(importance, tensor([0.625, 0.375, third, third, third], dtype=torch.float64))
    torch.testing.assert_close(reference.varlen_attention(*one_hot_attention(), CU_2_0_3, 3, 1.0), context)


def test_importance_is_averaged_over_heads_and_divided_by_the_denominator():
    q, k, v = (x.expand(5, 2, 2).clone() for x in one_hot_attention())
    q[:, 1] = 0  # the second head is uniform
    _, importance = reference.attn_importance(q, k, v, CU_2_0_3, 3, 1.0)
    torch.testing.assert_close(importance[:2], tensor([0.5625, 0.4375], dtype=torch.float64))
    _, scaled = reference.attn_importance(q, k, v, CU_2_0_3, 3, 1.0, tensor([4.0, 1.0, 6.0]))
    torch.testing.assert_close(scaled, importance * tensor([0.5, 0.5, 0.5, 0.5, 0.5], dtype=torch.float64))


def test_scale_multiplies_the_scores():
    q, k, v = one_hot_attention()
    halved, _ = reference.attn_importance(q * 2, k, v, CU_2_0_3, 3, 0.5)
    torch.testing.assert_close(halved, reference.varlen_attention(q, k, v, CU_2_0_3, 3, 1.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_of_attention(dtype):
    context, importance = reference.attn_importance(*one_hot_attention(dtype), CU_2_0_3, 3, 1.0)
    assert context.dtype == dtype
    assert importance.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_no_rows_at_all():
    empty = torch.zeros(0, 1, 2)
    for bounds in (int32(0), int32(0, 0)):
        context, importance = reference.attn_importance(empty, empty, empty, bounds, 0, 1.0)
        assert context.shape == (0, 1, 2) and importance.shape == (0,)
        keep_idx, new_bounds = reference.keep_threshold(importance, bounds, 0.5)
        assert keep_idx.shape == (0,) and torch.equal(new_bounds, bounds)
        assert reference.keep_topk(importance, bounds, 0.5)[0].shape == (0,)


# rule, value, importance of CU_2_0_3, options, kept rows
DECISIONS = {
    "at the threshold stays": ("threshold", 0.5, (0.5, 0.1, 0.1, 0.5, 0.9), {"protect_first": False}, (0, 3, 4)),
    "first is protected": ("threshold", 0.5, (0.1, 0.6, 0.1, 0.1, 0.9), {}, (0, 1, 2, 4)),
    "never empty, first of equals": ("threshold", 0.5, (0.1, 0.2, 0.3, 0.4, 0.4), {"protect_first": False}, (1, 3)),
    "NaN stays": ("threshold", 0.5, (NAN, 0.1, 0.1, NAN, 0.1), {"protect_first": False}, (0, 3)),
    "half, rounded up": ("topk", 0.5, (0.1, 0.2, 0.3, 0.1, 0.4), {"protect_first": False}, (1, 2, 4)),
    "first counts": ("topk", 0.5, (0.1, 0.2, 0.1, 0.3, 0.4), {}, (0, 2, 4)),
    "ties to the lower": ("topk", 0.4, (0.2, 0.2, 0.2, 0.2, 0.2), {"protect_first": False}, (0, 2, 3)),
    "at least one": ("topk", 0.01, (0.1, 0.2, 0.1, 0.3, 0.2), {"protect_first": False}, (1, 3)),
    "NaN counts": ("topk", 0.4, (0.1, 0.2, 0.1, 0.3, NAN), {"protect_first": False}, (1, 3, 4)),
    "all": ("topk", 1.0, (0.1, 0.2, 0.1, 0.3, 0.2), {}, (0, 1, 2, 3, 4)),
}


@pytest.mark.parametrize("case", DECISIONS)
def test_decisions(case):
    rule, value, importance, options, kept = DECISIONS[case]
    keep = {"threshold": reference.keep_threshold, "topk": reference.keep_topk}[rule]
    keep_idx, bounds = keep(tensor(importance), CU_2_0_3, value, **options)
    assert keep_idx.tolist() == list(kept)
    first = sum(row < 2 for row in kept)
    assert bounds.tolist() == [0, first, first, len(kept)]
    assert keep_idx.dtype == bounds.dtype == torch.int32
    padded, same = keep(tensor(importance), CU_2_0_3, value, **options, capacity=True)
    assert padded.tolist() == [*kept, *[0] * (5 - len(kept))]
    assert torch.equal(same, bounds)


def test_protected_rows():
    importance, protected = tensor((0.1, 0.2, 0.3, 0.4, 0.5)), tensor([True, True, False, True, False])
    keep_idx, _ = reference.keep_threshold(importance, CU_2_0_3, 9.0, protected, protect_first=False)
    assert keep_idx.tolist() == [0, 1, 3]
    keep_idx, _ = reference.keep_topk(importance, CU_2_0_3, 0.34, protected, protect_first=False)
    assert keep_idx.tolist() == [0, 1, 3, 4], "k = 1 of 2: both protected stay; k = 2 of 3: one is, the best joins it"


@pytest.mark.parametrize(("ratio", "n", "k"), [(0.1, 30, 3), (0.7, 10, 7), (0.29, 100, 29), (0.3, 3, 1), (0.34, 3, 2)])
def test_count_of_topk_is_exact(ratio, n, k):
    keep_idx, _ = reference.keep_topk(torch.arange(n) / n, int32(0, n), ratio, protect_first=False)
    assert keep_idx.tolist() == list(range(n - k, n))


def test_gathers():
    x = torch.arange(10.0).view(5, 2)
    assert reference.compact(x, int32(4, 0, 0), 2).tolist() == [[8, 9], [0, 1]]
    rows, labels = reference.compact_many([x, torch.arange(5)], int32(3, 1), 2)
    assert rows.tolist() == [[6, 7], [2, 3]] and labels.tolist() == [3, 1]
    out = torch.full((6, 2), -1.0)
    reference.store_exits_(out, x[:3], int32(1, 2, 5), int32(1))
    assert out.tolist() == [[-1, -1], [0, 1], [-1, -1], [-1, -1], [-1, -1], [4, 5]]
    reference.store_exits_(out, x[3:4], int32(2), int32())
    assert out[2].tolist() == [6, 7]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float32])
def test_packing(dtype):
    mask = tensor([[0, 1, 1], [0, 0, 0], [1, 0, 1]]).to(dtype)
    token_idx, bounds, position = reference.pack_index(mask)
    assert token_idx.tolist() == [1, 2, 6, 8]
    assert bounds.tolist() == [0, 2, 2, 4]
    assert position.tolist() == [0, 1, 0, 1]
    assert {token_idx.dtype, bounds.dtype, position.dtype} == {torch.int32}
    x = torch.arange(9).view(3, 3)
    packed, same_bounds, same_idx = reference.pack(x, mask)
    assert packed.tolist() == [1, 2, 6, 8]
    assert torch.equal(same_bounds, bounds) and torch.equal(same_idx, token_idx)
    assert reference.unpack(packed, token_idx, 3, 3).tolist() == [[0, 1, 2], [0, 0, 0], [6, 0, 8]]


def test_add_layer_norm():
    x, residual = tensor([[0.0, 1.0], [4.0, 4.0]]), tensor([[1.0, 2.0], [0.0, 0.0]])
    out = reference.add_layer_norm(x, residual, tensor([2.0, 3.0]), tensor([0.5, -0.5]), 0.0001)
    half = 1.0 / math.sqrt(1.0 + 0.0001)  # x + residual = (1, 3): mean 2, variance 1
    torch.testing.assert_close(out, tensor([[0.5 - 2 * half, -0.5 + 3 * half], [0.5, -0.5]]))


def test_packed_weight_layout():
    weight = torch.arange(70.0 * 3).view(70, 3)
    packed = reference.pack_weight(weight)
    assert packed.shape == (2, 3, 64)
    assert packed[0, :, 5].tolist() == weight[5].tolist()
    assert packed[1, :, 5].tolist() == weight[69].tolist()
    assert not packed[1, :, 6:].any()
    packed = reference.pack_weight(weight.bfloat16())
    assert packed.shape == (2, 2, 64, 2)
    assert packed[1, :, 5].flatten().tolist() == [*weight[69].bfloat16().tolist(), 0.0]
    assert not packed[1, :, 6:].any()


ACTIVATED = {"none": -1.0, "gelu": -0.158655, "gelu_tanh": -0.158808, "relu": 0.0}  # of -1, by hand


@pytest.mark.parametrize("activation", ACTIVATED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_linear(activation, dtype):
    code = reference.linear.ACTIVATIONS[activation]
    weight = torch.zeros(65, 3, dtype=dtype)
    weight[64] = tensor([1.0, 0.0, 2.0])
    bias = torch.full((65,), -1.0, dtype=dtype)
    x = tensor([[9.0, 9.0, 9.0], [2.0, 7.0, -1.0]], dtype=dtype)
    out = reference.packed_linear(x, reference.pack_weight(weight), bias, 65, code, int32(1, 1))
    assert out.shape == (2, 65) and out.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 4e-3
    torch.testing.assert_close(out.float(), torch.full((2, 65), ACTIVATED[activation]), rtol=tolerance, atol=tolerance)


def test_prune_attention_is_its_parts():
    q, k, v = one_hot_attention()
    residual = torch.arange(10.0, dtype=torch.float64).view(5, 2)
    context, rows, importance, keep_idx, bounds = reference.prune_attention(
        q, k, v, residual, CU_2_0_3, 3, 1.0, threshold=0.4, protect_first=False
    )
    assert keep_idx.tolist() == [0, 2], "0.625 passes; of three equal ones below the first stays"
    assert bounds.tolist() == [0, 1, 1, 2]
    torch.testing.assert_close(context[:, 0], tensor([[0.75, 0.25], [3.0, 4.0]], dtype=torch.float64))
    assert rows.tolist() == [[0, 1], [4, 5]]
    assert importance.shape == (5,)
    by_ratio = reference.prune_attention(q, k, v, residual, CU_2_0_3, 3, 1.0, keep_ratio=1.0)
    assert by_ratio[3].tolist() == [0, 1, 2, 3, 4]
