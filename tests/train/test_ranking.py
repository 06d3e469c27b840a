"""Ranking distillation against the formula written as loops."""

import math

import pytest
import torch
from tokprune_train.objectives.ranking import ranking_distillation

from .naive import bounds, ranked, rows_of


def naive(student, teacher, cu_seqlens, top, sigma, scale_by_length):
    losses = []
    for rows in rows_of(cu_seqlens):
        length = rows.stop - rows.start
        if not length:
            continue
        scores = student[rows] * (length if scale_by_length else 1)
        order = ranked(teacher[rows].tolist(), [False, *[True] * (length - 1)])[:top]
        loss = torch.zeros((), dtype=student.dtype)
        for i, better in enumerate(order):
            for j, worse in enumerate(order):
                if i < j:
                    loss = loss + (j - i) * torch.log2(1 + torch.exp(-sigma * (scores[better] - scores[worse])))
        losses.append(loss / max(len(order), 1) ** 2)
    return sum(losses) / len(losses)


def test_by_hand():
    """[CLS] and two tokens that the student ranks the other way round: one pair, one rank apart."""
    loss = ranking_distillation(torch.tensor([0.5, 0.2, 0.3]), torch.tensor([0.1, 0.7, 0.2]), bounds(3))
    assert float(loss) == pytest.approx(math.log2(1 + math.exp(3 * 0.1)) / 4)


@pytest.mark.parametrize("top", [1, 4, 20])
@pytest.mark.parametrize(("sigma", "scale_by_length"), [(1.0, True), (2.5, False)])
def test_against_loops(top, sigma, scale_by_length):
    cu_seqlens = bounds(6, 0, 1, 30, 2)
    student, teacher = torch.rand(39, dtype=torch.float64), torch.randint(8, (39,)).double()
    loss = ranking_distillation(student, teacher, cu_seqlens, top, sigma, scale_by_length)
    torch.testing.assert_close(loss, naive(student, teacher, cu_seqlens, top, sigma, scale_by_length))


def test_gradients():
    cu_seqlens, teacher = bounds(6, 0, 9), torch.rand(15)
    student = torch.rand(15, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: ranking_distillation(s, teacher, cu_seqlens, top=5), student)
    ranking_distillation(student, teacher, cu_seqlens, top=5).backward()
    assert (student.grad != 0).sum() == 10 and student.grad[[0, 6]].tolist() == [0, 0]


def test_following_the_gradient_makes_the_student_rank_as_the_teacher():
    teacher, cu_seqlens = torch.rand(12), bounds(12)
    student = torch.rand(12).softmax(0).requires_grad_()
    optimizer = torch.optim.SGD([student], lr=0.01)
    for _ in range(500):
        optimizer.zero_grad()
        ranking_distillation(student, teacher, cu_seqlens).backward()
        optimizer.step()
    assert torch.equal(student[1:].argsort(), teacher[1:].argsort())


def test_length_scaling_tells_right_from_wrong_in_small_scores():
    teacher = torch.arange(100, 0, -1.0)
    right = teacher / teacher.sum()
    scaled, plain = (
        ranking_distillation(right.flip(0), teacher, bounds(100), scale_by_length=scale)
        - ranking_distillation(right, teacher, bounds(100), scale_by_length=scale)
        for scale in (True, False)
    )
    assert scaled > 50 * plain > 0


def test_huge_differences_stay_finite():
    student = torch.tensor([0.0, -1e4, 1e4], requires_grad=True)
    loss = ranking_distillation(student, torch.tensor([0.0, 2.0, 1.0]), bounds(3))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(student.grad).all()


BAD = {
    "top": lambda: ranking_distillation(torch.rand(3), torch.rand(3), bounds(3), top=0),
    "sigma": lambda: ranking_distillation(torch.rand(3), torch.rand(3), bounds(3), sigma=0.0),
    "teacher_scores": lambda: ranking_distillation(torch.rand(3), torch.rand(4), bounds(3)),
    "cu_seqlens": lambda: ranking_distillation(torch.rand(3), torch.rand(3), bounds(4)),
}


@pytest.mark.parametrize("named", BAD)
def test_refusals(named):
    with pytest.raises(ValueError, match=named):
        BAD[named]()
