"""SpAtten's schedule by hand."""

from itertools import accumulate
from operator import mul

import pytest
from tokprune_train.objectives.schedules import spatten_keep_ratios

from tokprune_kernels import PruningConfig


def test_shares_of_the_original_tokens_fall_linearly():
    ratios = spatten_keep_ratios(0.1, 12)
    shares = list(accumulate(ratios, mul))
    assert shares == pytest.approx([1, 1, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    PruningConfig.top(ratios).validate(12)


@pytest.mark.parametrize(("layers", "whole"), [(4, 3), (12, 3), (20, 3), (21, 4), (24, 4), (100, 15)])
def test_first_layers_are_whole(layers, whole):
    assert [ratio == 1.0 for ratio in spatten_keep_ratios(0.5, layers)] == [True] * whole + [False] * (layers - whole)


def test_whole_layers_of_a_small_model():
    assert list(accumulate(spatten_keep_ratios(0.4, 3, whole_layers=1), mul)) == pytest.approx([1, 0.7, 0.4])
    assert spatten_keep_ratios(1.0, 3, whole_layers=2) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("named", "arguments"),
    [("final_keep", (0.0, 12)), ("final_keep", (1.1, 12)), ("give whole_layers", (0.5, 3)), ("whole_layers", (0.5, 6, 0))],
)
def test_refusals(named, arguments):
    with pytest.raises(ValueError, match=named):
        spatten_keep_ratios(*arguments)
