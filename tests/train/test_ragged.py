"""Sums, means and ranks over packed texts against loops over the texts."""

import pytest
import torch
from tokprune_train.objectives import ragged

from .naive import bounds, ranked, rows_of

CU_SEQLENS = bounds(3, 0, 1, 5, 0)


@pytest.mark.parametrize("shape", [(9,), (9, 2)])
@pytest.mark.parametrize("bounds_dtype", [torch.int32, torch.int64])
def test_sum_and_mean(shape, bounds_dtype):
    values, cu_seqlens = torch.randn(shape, dtype=torch.float64), CU_SEQLENS.to(bounds_dtype)
    parts = [values[rows] for rows in rows_of(CU_SEQLENS)]
    torch.testing.assert_close(ragged.per_text_sum(values, cu_seqlens), torch.stack([part.sum(0) for part in parts]))
    means = torch.stack([part.mean(0) if len(part) else part.sum(0) for part in parts])
    torch.testing.assert_close(ragged.per_text_mean(values, cu_seqlens), means)


def test_half_precision_is_summed_in_float32():
    sums = ragged.per_text_sum(torch.ones(1000, dtype=torch.bfloat16), bounds(1000))
    assert sums.dtype == torch.float32 and sums.tolist() == [1000.0]  # bfloat16 would stop at 256


def test_gradients():
    values = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: ragged.per_text_mean(v, CU_SEQLENS), values)


def test_index_and_first():
    assert ragged.text_index(CU_SEQLENS, 9).tolist() == [0, 0, 0, 2, 3, 3, 3, 3, 3]
    assert ragged.is_first_token(CU_SEQLENS, 9).nonzero().flatten().tolist() == [0, 3, 4]
    assert ragged.text_index(bounds(), 0).tolist() == []


def test_index_is_of_the_bounds_as_they_are():
    """It is built once for a tensor, but not kept when the tensor changes, nor for another number of tokens."""
    cu_seqlens = CU_SEQLENS.clone()
    index = ragged.text_index(cu_seqlens, 9)
    assert ragged.text_index(cu_seqlens, 9) is index and ragged.text_index(cu_seqlens.clone(), 9) is not index
    with pytest.raises(ValueError, match="cu_seqlens must end at the number of tokens, 8, got 9"):
        ragged.text_index(cu_seqlens, 8)
    cu_seqlens[1] = 2
    assert ragged.text_index(cu_seqlens, 9).tolist() == [0, 0, 1, 2, 3, 3, 3, 3, 3]
    with torch.inference_mode():
        made = CU_SEQLENS.clone()
        assert ragged.text_index(made, 9).tolist() == index.tolist()
        made[1] = 2
        assert ragged.text_index(made, 9).tolist() == [0, 0, 1, 2, 3, 3, 3, 3, 3]


def test_mean_over_texts_counts_those_that_are_there():
    values = torch.tensor([1.0, float("nan"), 5.0])
    assert ragged.mean_over_texts(values, torch.tensor([True, False, True])) == 3.0
    assert ragged.mean_over_texts(values, torch.zeros(3, dtype=torch.bool)) == 0.0


@pytest.mark.parametrize("distinct", [2, 1000])
def test_ranks(distinct):
    """With two distinct scores nearly all are ties."""
    cu_seqlens = bounds(7, 0, 30, 1, 64)
    scores, candidates = torch.randint(distinct, (102,)).float(), torch.rand(102) < 0.7
    expected = torch.full((102,), -1)
    for rows in rows_of(cu_seqlens):
        for rank, row in enumerate(ranked(scores[rows].tolist(), candidates[rows].tolist())):
            expected[rows.start + row] = rank
    assert torch.equal(ragged.rank_in_text(scores, candidates, cu_seqlens), expected)


def test_nan_ranks_first():
    scores = torch.tensor([1.0, float("nan"), 2.0])
    assert ragged.rank_in_text(scores, torch.ones(3, dtype=torch.bool), bounds(3)).tolist() == [2, 0, 1]


def test_refusals():
    with pytest.raises(ValueError, match="must end at the number of tokens, 8, got 9"):
        ragged.per_text_sum(torch.ones(8), CU_SEQLENS)
    with pytest.raises(ValueError, match="cu_seqlens"):
        ragged.text_index(torch.zeros(0, dtype=torch.int32), 0)
    with pytest.raises(ValueError, match="candidates"):
        ragged.rank_in_text(torch.ones(9), torch.ones(8, dtype=torch.bool), CU_SEQLENS)
