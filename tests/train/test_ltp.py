"""LTP's soft stage against hand-computed values and float64 differences."""

import math

import pytest
import torch
from tokprune_train.objectives.ltp import mask_regularizer, soft_mask, threshold_line

from .naive import bounds


def test_threshold_line_by_hand():
    """From 0, as in LTP's code, or up to the final threshold itself."""
    assert threshold_line(0.01, 4) == pytest.approx([0.0, 0.0025, 0.005, 0.0075])
    assert threshold_line(0.01, 4, start=1) == pytest.approx([0.0025, 0.005, 0.0075, 0.01])


def test_soft_mask_by_hand():
    mask = soft_mask(torch.tensor([0.01, 0.02, 0.0]), 0.01, 0.01)
    assert mask.tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))])


def test_soft_mask_becomes_the_hard_decision():
    importance = torch.tensor([0.0099, 0.0101, 0.5])
    assert soft_mask(importance, 0.01, 1e-6).round().tolist() == [0.0, 1.0, 1.0]


def test_regularizer_by_hand():
    """Texts of 2, 0 and 1 tokens: layer one passes on 0.75 of the first and all of the last, layer two 0.25 and 0.5."""
    masks = [torch.tensor([1.0, 0.5, 1.0]), torch.tensor([0.25, 0.25, 0.5])]
    assert float(mask_regularizer(masks, bounds(2, 0, 1))) == pytest.approx((0.75 + 1) / 2 + (0.25 + 0.5) / 2)
    assert float(mask_regularizer([torch.zeros(0)], bounds(0, 0))) == 0.0


def test_regularizer_of_a_batch_is_the_mean_of_its_halves():
    masks = [torch.rand(10, dtype=torch.float64) for _ in range(3)]
    halves = [
        mask_regularizer([m[:3] for m in masks], bounds(1, 2)),
        mask_regularizer([m[3:] for m in masks], bounds(4, 3)),
    ]
    torch.testing.assert_close(mask_regularizer(masks, bounds(1, 2, 4, 3)), sum(halves) / 2)


def test_gradients_reach_scores_and_threshold():
    importance = torch.rand(5, dtype=torch.float64, requires_grad=True)
    threshold = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    cu_seqlens = bounds(2, 3)
    assert torch.autograd.gradcheck(
        lambda s, t: mask_regularizer([soft_mask(s, t, 0.1), soft_mask(s, 2 * t, 0.1)], cu_seqlens),
        (importance, threshold),
    )


BAD = {
    "temperature": lambda: soft_mask(torch.rand(3), 0.1, 0.0),
    "masks must hold the soft mask": lambda: mask_regularizer([], bounds(3)),
    "masks must hold one value": lambda: mask_regularizer([torch.rand(3), torch.rand(2)], bounds(3)),
    "cu_seqlens": lambda: mask_regularizer([torch.rand(3)], bounds(4)),
    "final": lambda: threshold_line(-0.1, 4),
    "num_layers": lambda: threshold_line(0.01, 0),
    "start": lambda: threshold_line(0.01, 4, start=2),
}


@pytest.mark.parametrize("named", BAD)
def test_bad_input_names_the_argument(named):
    with pytest.raises(ValueError, match=named):
        BAD[named]()
