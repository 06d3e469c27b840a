"""Where a GPU exists: a training step, and what is asked of a model before it, against the same on the CPU."""

import pytest
import torch

pytest.importorskip("triton", reason="needs triton")
pytest.importorskip("datasets", reason="needs datasets")

import tokprune_kernels as tk  # noqa: E402
from tests.train.needles import COLLATOR, needle_rows, tiny_model  # noqa: E402
from tokprune_train.calibration.fit import kept_lengths  # noqa: E402
from tokprune_train.calibration.scores import sample_scores  # noqa: E402
from tokprune_train.data.encoding import PER_TEXT, PER_TOKEN, on_device  # noqa: E402
from tokprune_train.evaluation import evaluate  # noqa: E402
from tokprune_train.objectives.cost import FlopsCost  # noqa: E402
from tokprune_train.objectives.gates import RankGates  # noqa: E402
from tokprune_train.pruners.base import Constraint  # noqa: E402
from tokprune_train.pruners.ltp import LearnedThresholds  # noqa: E402
from tokprune_train.pruners.top import LearnedKeepRatios  # noqa: E402
from tokprune_train.student import Student, Teaching  # noqa: E402
from tokprune_train.teacher import teach  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
DEVICES = ("cpu", "cuda")
PRUNING = tk.PruningConfig.ltp([0.0, 0.03, 0.04])


@pytest.fixture
def taught():
    """Rows with all that a teacher says, which the CPU computed."""
    rows = needle_rows(12, seed=1)
    teach(tiny_model(), rows, COLLATOR, {*PER_TEXT, *PER_TOKEN})
    return rows


def test_the_teacher_says_the_same(taught):
    """And what it said lies in the rows, on the CPU."""
    rows = needle_rows(12, seed=1)
    teach(tiny_model().cuda(), rows, COLLATOR, {*PER_TEXT, *PER_TOKEN})
    for row, expected in zip(rows, taught, strict=True):
        for name in (*PER_TEXT, *PER_TOKEN):
            torch.testing.assert_close(row[name], expected[name], rtol=5e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_calibration_and_evaluation_agree():
    rows = needle_rows(40, seed=2)
    model = tiny_model()
    here = [sample_scores(model, rows, COLLATOR), kept_lengths(model, PRUNING, rows, COLLATOR)]
    scores = evaluate(model, rows, COLLATOR, 32)
    model.cuda()
    there = [sample_scores(model, rows, COLLATOR), kept_lengths(model, PRUNING, rows, COLLATOR)]
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-5)
    assert evaluate(model, rows, COLLATOR, 32).to_dict() == scores.to_dict()


def thresholds(constraint):
    return LearnedThresholds([0.01, 0.03, 0.04], unit=0.04, constraint=constraint)


def keep_ratios(constraint):
    gates = RankGates(3, [1, 2], fine_start=(0.5, 0.5), coarse="on")
    return LearnedKeepRatios(gates, constraint, ranking=0.1, ranked_layers=[1], score_temperature=0.3)


def nothing(constraint):
    """The hard stage: tokens are really removed."""
    return None


@pytest.mark.parametrize("learned", [thresholds, keep_ratios, nothing])
def test_a_step_has_the_same_loss_and_gradients(learned, taught):
    """Under every loss that there is; gates are drawn alike on both."""
    teaching = Teaching(answers=0.5, states=1.0, layers=1.0, tokens=1.0, importance=1.0)
    steps = {}
    for device in DEVICES:
        model = tiny_model()
        pruner = learned(Constraint(FlopsCost(model.config, "before_layer"), 0.4, quadratic=2.0))
        model.set_pruning(PRUNING if pruner is None else None)
        student = Student(model, pruner, teaching, tiny_model().eval()).to(device)
        loss = student(**on_device(COLLATOR(taught), torch.device(device)))["loss"]
        loss.backward()
        gradients = {name: p.grad.cpu() for name, p in student.named_parameters() if p.grad is not None}
        steps[device] = {"loss": loss.detach().cpu()} | gradients
    assert steps["cuda"].keys() == steps["cpu"].keys()
    for name, expected in steps["cpu"].items():
        size = float(expected.abs().max())
        torch.testing.assert_close(
            steps["cuda"][name], expected, rtol=5e-3, atol=5e-3 * size + 1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
