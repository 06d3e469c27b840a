"""Prediction distillation against sums written out."""

import math

import pytest
import torch
from tokprune_train.objectives.distillation import prediction_distillation, state_distillation


def softmax(logits, temperature):
    powers = [math.exp(x / temperature) for x in logits]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_by_hand(temperature):
    student, teacher = [[0.3, -1.0, 2.0], [0.0, 0.0, 1.0]], [[1.0, 0.5, -0.5], [0.0, 0.0, 1.0]]
    p, q = softmax(teacher[0], temperature), softmax(student[0], temperature)
    first = temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    loss = prediction_distillation(torch.tensor(student), torch.tensor(teacher), temperature)
    assert float(loss) == pytest.approx(first / 2)  # the second row agrees


def test_regression_is_the_mean_squared_error():
    loss = prediction_distillation(torch.tensor([[1.0], [4.0]]), torch.tensor([[0.0], [2.0]]), temperature=3.0)
    assert float(loss) == 2.5


@pytest.mark.parametrize("columns", [1, 3])
def test_gradients(columns):
    student, teacher = (torch.randn(4, columns, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda s, t: prediction_distillation(s, t, 2.0), (student, teacher))


BAD = {
    "teacher_logits": lambda: prediction_distillation(torch.rand(2, 3), torch.rand(2, 2)),
    "must both be": lambda: prediction_distillation(torch.rand(2), torch.rand(2)),
    "temperature": lambda: prediction_distillation(torch.rand(2, 3), torch.rand(2, 3), 0.0),
}


@pytest.mark.parametrize("named", BAD)
def test_refusals(named):
    with pytest.raises(ValueError, match=named):
        BAD[named]()


def test_states_by_hand():
    """At unit length: equal directions are 0 apart, orthogonal ones 2, opposite ones 4; the mean over the rows."""
    student = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0], [5.0, 0.0], [-1.0, -1.0]], dtype=torch.float64)
    assert state_distillation(student, teacher).item() == pytest.approx((0 + 2 + 4) / 3)
    assert torch.autograd.gradcheck(state_distillation, (student, teacher))
    layers = (student[:, None].expand(3, 4, 2), teacher[:, None].expand(3, 4, 2))
    assert state_distillation(*layers).item() == pytest.approx((0 + 2 + 4) / 3)


def test_states_of_other_shapes():
    with pytest.raises(ValueError, match=r"must both be \(B, H\) or \(B, N, H\), got shapes \(2, 3\) and \(2, 4\)"):
        state_distillation(torch.zeros(2, 3), torch.zeros(2, 4))
