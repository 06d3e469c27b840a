"""Keep decisions by hand-worked examples: ties, protection, NaN, the at-least-one rule, capacity."""

import pytest
import torch

from tokprune_kernels import ops

from .samples import cu_seqlens_of

NAN = float("nan")


def threshold(scores, value, lengths=None, **kwargs):
    keep, bounds = ops.keep_threshold(torch.tensor(scores), cu_seqlens_of(lengths or [len(scores)]), value, **kwargs)
    return keep.tolist(), bounds.tolist()


def topk(scores, ratio, lengths=None, **kwargs):
    keep, bounds = ops.keep_topk(torch.tensor(scores), cu_seqlens_of(lengths or [len(scores)]), ratio, **kwargs)
    return keep.tolist(), bounds.tolist()


def test_threshold_keeps_equal_scores_and_the_first_token():
    assert threshold([0.1, 0.5, 0.4, 0.5], 0.5) == ([0, 1, 3], [0, 3])
    assert threshold([0.1, 0.5, 0.4, 0.5], 0.5, protect_first=False) == ([1, 3], [0, 2])


def test_threshold_keeps_the_best_where_none_reaches_it_ties_to_the_lower_position():
    assert threshold([0.1, 0.3, 0.3, 0.2], 9.0, protect_first=False) == ([1], [0, 1])
    assert threshold([0.1, 0.3], 9.0) == ([0], [0, 1])


def test_threshold_keeps_nan_and_protected():
    assert threshold([0.1, NAN, 0.1, 0.1], 0.5) == ([0, 1], [0, 2])
    protected = torch.tensor([False, False, False, True])
    assert threshold([0.1, 0.1, 0.1, 0.1], 0.5, protected=protected, protect_first=False) == ([3], [0, 1])


def test_threshold_works_sequence_by_sequence():
    scores, lengths = [0.1, 0.9, 0.1, 0.1, 0.9], [2, 0, 3]
    assert threshold(scores, 0.5, lengths) == ([0, 1, 2, 4], [0, 2, 2, 4])


def test_topk_counts_the_first_token_and_breaks_ties_downwards():
    assert topk([0.0, 0.5, 0.7, 0.5], 0.5) == ([0, 2], [0, 2])
    assert topk([0.0, 0.5, 0.7, 0.5], 0.75) == ([0, 1, 2], [0, 3])
    assert topk([0.0, 0.5, 0.7, 0.5], 0.75, protect_first=False) == ([1, 2, 3], [0, 3])


def test_topk_rounds_up_but_not_for_rounding_errors():
    for n, ratio, k in ((10, 0.1, 1), (10, 0.7, 7), (3, 1 / 3, 1), (10, 0.1 + 1e-8, 2), (7, 0.5, 4), (1, 0.01, 1)):
        assert topk([0.1] * n, ratio)[1] == [0, k], (n, ratio)


def test_topk_past_the_first_token():
    """k = 1 + ceil(ratio * (n - 1)), the first token among them whatever its score."""
    scores = [0.0, 0.5, 0.7, 0.5, 0.9]
    assert topk(scores, 0.5, count_first=False) == ([0, 2, 4], [0, 3])
    assert topk(scores, 0.51, count_first=False) == ([0, 1, 2, 4], [0, 4])
    assert topk(scores, 1.0, count_first=False) == ([0, 1, 2, 3, 4], [0, 5])
    assert topk(scores, 1e-15, count_first=False) == ([0], [0, 1])
    assert topk(scores, 0.5, [1, 0, 4], count_first=False) == ([0, 1, 2, 4], [0, 1, 1, 4])
    for n, ratio, k in ((11, 0.1, 2), (11, 0.7, 8), (4, 1 / 3, 2), (11, 0.1 + 1e-8, 3), (8, 0.5, 5), (2, 0.01, 2), (1, 0.5, 1)):
        assert topk([0.1] * n, ratio, count_first=False)[1] == [0, k], (n, ratio)


def test_topk_past_the_first_token_counts_what_is_protected():
    protected = torch.tensor([False, True, False, False, False])
    assert topk([0.0, 0.1, 0.7, 0.5, 0.9], 0.5, protected=protected, count_first=False) == ([0, 1, 4], [0, 3])
    assert topk([0.0, 0.1, NAN, NAN, 0.9], 0.25, protected=protected, count_first=False) == ([0, 1, 2, 3], [0, 4])


def test_past_the_first_token_needs_a_ranking_without_it():
    for function in (ops.keep_topk, torch.ops.tokprune.keep_topk):
        with pytest.raises(ValueError, match="count_first.*protect_first"):
            function(torch.rand(3), cu_seqlens_of([3]), 0.5, None, False, False, False)
    q, residual, bounds = torch.rand(3, 2, 8), torch.rand(3, 16), cu_seqlens_of([3])
    for function in (ops.prune_attention, torch.ops.tokprune.prune_attention):
        with pytest.raises(ValueError, match="count_first"):
            function(q, q, q, residual, bounds, 3, 0.5, 0.1, None, None, None, True, False)
        with pytest.raises(ValueError, match="count_first.*protect_first"):
            function(q, q, q, residual, bounds, 3, 0.5, None, 0.5, None, None, False, False)


def test_topk_keeps_all_protected_and_nan_even_beyond_its_count():
    protected = torch.tensor([True, True, True, False])
    assert topk([0.1, 0.1, 0.1, 0.9], 0.25, protected=protected) == ([0, 1, 2], [0, 3])
    assert topk([0.1, NAN, 0.9, 0.2], 0.5) == ([0, 1], [0, 2])
    assert topk([0.1, NAN, NAN, 0.9], 0.25) == ([0, 1, 2], [0, 3])


def test_capacity_form_fills_up_with_row_zero():
    assert threshold([0.1, 0.5, 0.4, 0.5], 0.5, capacity=True) == ([0, 1, 3, 0], [0, 3])
    assert topk([0.1, 0.5, 0.4, 0.5], 0.5, capacity=True) == ([0, 1, 0, 0], [0, 2])


def test_infinite_scores_are_ordinary():
    assert topk([0.1, float("inf"), float("-inf"), 0.2], 0.75) == ([0, 1, 3], [0, 3])


@pytest.mark.parametrize("value", (NAN, float("inf"), float("-inf")))
def test_threshold_must_be_finite(value):
    for function in (ops.keep_threshold, torch.ops.tokprune.keep_threshold):
        with pytest.raises(ValueError, match="threshold"):
            function(torch.rand(3), cu_seqlens_of([3]), value)


@pytest.mark.parametrize("value", (0.0, -0.5, 1.01, NAN))
def test_keep_ratio_must_be_a_share(value):
    for function in (ops.keep_topk, torch.ops.tokprune.keep_topk):
        with pytest.raises(ValueError, match="keep_ratio"):
            function(torch.rand(3), cu_seqlens_of([3]), value)


@pytest.mark.parametrize("function", (ops.keep_threshold, torch.ops.tokprune.keep_threshold))
def test_bad_input_names_the_argument(function):
    for changes, name in (
        ({"importance": torch.zeros(3, dtype=torch.int32)}, "importance"),
        ({"importance": torch.zeros(3, 1)}, "importance"),
        ({"cu_seqlens": cu_seqlens_of([4])}, "cu_seqlens"),
        ({"cu_seqlens": torch.tensor([0, 5, 3], dtype=torch.int32)}, "cu_seqlens"),
        ({"protected": torch.zeros(4, dtype=torch.bool)}, "protected"),
        ({"protected": torch.zeros(3)}, "protected"),
    ):
        arguments = {"importance": torch.rand(3), "cu_seqlens": cu_seqlens_of([3]), "threshold": 0.1} | changes
        with pytest.raises((ValueError, TypeError), match=name):
            function(**arguments)


def test_calls_that_do_not_know_of_it_stay_valid():
    """As many arguments as there were before, positional as compiled callers pass them; gradients as well."""
    importance, bounds = torch.tensor([0.0, 0.5, 0.7, 0.5]), cu_seqlens_of([4])
    kept, _ = torch.ops.tokprune.keep_topk(importance, bounds, 0.5, None, True, False)
    assert kept.tolist() == [0, 2]
    q, residual = torch.rand(4, 2, 8, requires_grad=True), torch.rand(4, 16)
    context, *_, new_bounds = torch.ops.tokprune.prune_attention(q, q, q, residual, bounds, 4, 0.5, None, 0.5, None, None, True)
    context.sum().backward()
    assert new_bounds.tolist() == [0, 2] and q.grad.abs().sum() > 0
