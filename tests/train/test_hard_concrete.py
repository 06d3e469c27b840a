"""Hard-concrete gates against values by hand, differences in float64, and their own distribution."""

import math

import pytest
import torch
from tokprune_train.objectives.hard_concrete import hard_concrete, open_probability


def test_by_hand():
    """u = 1/2 leaves the logit alone: sigmoid(1.5 a) stretched to (-0.1, 1.1) and cut off."""
    logits = torch.tensor([0.0, 1.0, -1.0, 4.0, -4.0])
    stretched = [1.2 / (1 + math.exp(-1.5 * a)) - 0.1 for a in logits.tolist()]
    assert stretched[3] > 1 and stretched[4] < 0
    values = hard_concrete(logits, torch.full((5,), 0.5))
    assert values.tolist() == pytest.approx([*stretched[:3], 1.0, 0.0])


def test_open_probability_by_hand():
    odds = math.log((0.1 / 1.2) / (1.1 / 1.2))
    expected = [1 - 1 / (1 + math.exp(-(odds * 2 / 3 - a))) for a in (0.0, 1.0, -3.0)]
    assert open_probability(torch.tensor([0.0, 1.0, -3.0])).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [2 / 3, 0.3])
def test_open_probability_is_how_often_gates_open(temperature):
    """Where z = 0 begins, as a function of the uniform number, is where the probability says: no sampling noise."""
    logits = torch.tensor([-3.0, -1.0, 0.0, 0.7], dtype=torch.float64)
    closed = 1 - open_probability(logits, temperature)
    assert (hard_concrete(logits, closed - 1e-9, temperature) == 0).all()
    assert (hard_concrete(logits, closed + 1e-6, temperature) > 0).all()


def test_gradients():
    logits = torch.tensor([-0.5, 0.0, 0.8], dtype=torch.float64, requires_grad=True)
    uniform = torch.tensor([0.6, 0.3, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a: hard_concrete(a, uniform), logits)
    assert torch.autograd.gradcheck(open_probability, logits)


def test_extreme_uniform_numbers_give_no_nan():
    logits = torch.zeros(2, requires_grad=True)
    values = hard_concrete(logits, torch.tensor([0.0, 1.0]))
    values.sum().backward()
    assert values.tolist() == [0.0, 1.0] and logits.grad.tolist() == [0.0, 0.0]


def test_refusals():
    with pytest.raises(ValueError, match="temperature"):
        hard_concrete(torch.zeros(2), torch.zeros(2), 0.0)
    with pytest.raises(ValueError, match="temperature"):
        open_probability(torch.zeros(2), -1.0)
    with pytest.raises(ValueError, match="uniform"):
        hard_concrete(torch.zeros(2), torch.zeros(3))
