"""LTP's soft stage against hand-computed values and float64 differences."""

import math

import pytest
import torch
from tokprune_train.objectives.ltp import mask_regularizer, soft_mask


def test_soft_mask_by_hand():
    mask = soft_mask(torch.tensor([0.01, 0.02, 0.0]), 0.01, 0.01)
    assert mask.tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))])


def test_soft_mask_becomes_the_hard_decision():
    importance = torch.tensor([0.0099, 0.0101, 0.5])
    assert soft_mask(importance, 0.01, 1e-6).round().tolist() == [0.0, 1.0, 1.0]


def test_regularizer_by_hand():
    masks = [torch.tensor([1.0, 0.5]), torch.tensor([0.25]), torch.zeros(0)]
    assert float(mask_regularizer(masks)) == pytest.approx(0.75 + 0.25)


def test_gradients_reach_scores_and_threshold():
    importance = torch.rand(5, dtype=torch.float64, requires_grad=True)
    threshold = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, t: mask_regularizer([soft_mask(s, t, 0.1)]), (importance, threshold))


def test_bad_input_names_the_argument():
    with pytest.raises(ValueError, match="temperature"):
        soft_mask(torch.rand(3), 0.1, 0.0)
    with pytest.raises(ValueError, match="masks"):
        mask_regularizer([])
