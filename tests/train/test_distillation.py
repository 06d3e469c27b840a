"""Distillation losses against sums written out."""

import math

import pytest
import torch
from tokprune_train.objectives.distillation import importance_distillation, prediction_distillation, state_distillation, token_distillation


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


# Texts of 4, 0, 1 and 3 tokens; of the first, one token is gone, of the last both but the first are.
CU_SEQLENS = torch.tensor([0, 4, 4, 5, 8])
ALIVE = torch.tensor([True, True, False, True, True, True, False, False])


def test_tokens_by_hand():
    """Of those alive: the mean over a text's tokens, then over the texts that are not empty; what the others are does not count."""
    student = torch.tensor([[1.0, 0], [3, 0], [9, 9], [1, 1], [0, 2], [0, 1], [5, 7], [8, 8]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[2.0, 0], [0, 1], [0, 0], [-1, -1], [0, 3], [1, 0], [1, 1], [0, 0]], dtype=torch.float64, requires_grad=True)
    expected = ((0 + 2 + 4) / 3 + 0 + 2) / 3
    assert token_distillation(student, teacher, ALIVE, CU_SEQLENS).item() == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda s: token_distillation(s, teacher, ALIVE, CU_SEQLENS), (student,))
    with torch.no_grad():
        student[~ALIVE] = torch.nan
    loss = token_distillation(student, teacher, ALIVE, CU_SEQLENS)
    loss.backward()
    assert loss.item() == pytest.approx(expected) and teacher.grad is None
    assert student.grad.isfinite().all() and not student.grad[~ALIVE].any()
    half = token_distillation(student.detach().bfloat16(), teacher.bfloat16(), ALIVE, CU_SEQLENS)
    assert half.dtype == torch.float32 and half.item() == pytest.approx(expected)


def test_tokens_of_other_shapes():
    with pytest.raises(ValueError, match=r"alive \(T,\), of the same tokens; got shapes \(8, 2\), \(8, 3\) and \(8,\)"):
        token_distillation(torch.zeros(8, 2), torch.zeros(8, 3), ALIVE, CU_SEQLENS)
    with pytest.raises(ValueError, match="cu_seqlens must end at"):
        token_distillation(torch.zeros(8, 2), torch.zeros(8, 2), ALIVE, CU_SEQLENS[:-1])


def test_importance_by_hand():
    """Over the tokens alive but the first, each scaled to 1: KL, of the first text alone; the empty one does not count."""
    student = torch.tensor([0.5, 0.3, 0.2, 0.1, 1.0, 0.2, 0.3, 0.5])
    teacher = torch.tensor([0.1, 0.2, 0.6, 0.6, 1.0, 0.4, 0.4, 0.2])
    expected = 0.25 * math.log(0.25 / 0.75) + 0.75 * math.log(0.75 / 0.25)
    assert float(importance_distillation(student, teacher, ALIVE, CU_SEQLENS)) == pytest.approx(expected / 3)
    everything = torch.ones(8, dtype=torch.bool)
    last = sum(t * math.log(t / s) for s, t in ((3 / 8, 2 / 3), (5 / 8, 1 / 3)))
    first = sum(t * math.log(t / s) for s, t in ((3 / 6, 2 / 14), (2 / 6, 6 / 14), (1 / 6, 6 / 14)))
    assert float(importance_distillation(student, teacher, everything, CU_SEQLENS)) == pytest.approx((first + last) / 3)
    assert float(importance_distillation(2.5 * teacher, teacher, everything, CU_SEQLENS)) == pytest.approx(0, abs=1e-6)


def test_gradients_of_importance():
    """Of the student's only, none to tokens that are gone or first; zeros on either side leave it finite."""
    student = torch.rand(8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    teacher = torch.rand(8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: importance_distillation(s, teacher, ALIVE, CU_SEQLENS), (student,))
    importance_distillation(student, teacher, ALIVE, CU_SEQLENS).backward()
    assert teacher.grad is None and student.grad.nonzero().flatten().tolist() == [1, 3]
    for given, told in ((torch.zeros(8), torch.rand(8)), (torch.rand(8), torch.zeros(8)), (torch.zeros(8), torch.zeros(8))):
        given.requires_grad_()
        loss = importance_distillation(given, told, torch.ones(8, dtype=torch.bool), CU_SEQLENS)
        loss.backward()
        assert loss.isfinite() and given.grad.isfinite().all()


def test_importance_of_other_tokens():
    with pytest.raises(ValueError, match=r"must be of the same tokens \(T,\), got shapes \(8,\), \(7,\) and \(8,\)"):
        importance_distillation(torch.zeros(8), torch.zeros(7), ALIVE, CU_SEQLENS)
    with pytest.raises(ValueError, match="cu_seqlens must end at"):
        importance_distillation(torch.zeros(8), torch.zeros(8), ALIVE, CU_SEQLENS[:-1])
