"""Both methods, soft stage and hard stage, learn to keep what decides and to drop the rest, on a task whose answer is known.

What is counted is what the last layer's attention still sees when tokens are really removed. The weights learn slowly beside
thresholds and gates: a model that may change fast learns to read the needle in the first layer and to let it go there.
"""

import pytest
from tokprune_train.calibration.scores import quantile_line, sample_scores
from tokprune_train.evaluation import evaluate
from tokprune_train.objectives.cost import FlopsCost
from tokprune_train.objectives.gates import RankGates
from tokprune_train.pruners.base import Constraint
from tokprune_train.pruners.ltp import LearnedThresholds
from tokprune_train.pruners.top import LearnedKeepRatios
from tokprune_train.student import Student
from tokprune_train.trainer import Settings, StudentTrainer

from ..models.helpers import one_thread
from .needles import COLLATOR, kept_shares, needle_rows, tiny_model

TRAINING, HELD_OUT = needle_rows(2048, seed=1), needle_rows(256, seed=2)
LONGEST = 32


def fit(student, folder, epochs, learning_rate):
    settings = Settings(epochs=epochs, batch_size=32, learning_rate=learning_rate, weight_decay=0.0)
    with one_thread():
        StudentTrainer(student, TRAINING, COLLATOR, settings, folder).train()


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """Weights of a model that solves the task with nothing pruned."""
    model = tiny_model()
    fit(Student(model), tmp_path_factory.mktemp("dense"), epochs=12, learning_rate=2e-3)
    assert evaluate(model, HELD_OUT, COLLATOR, LONGEST).metrics["accuracy"] > 0.99
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def thresholds(model):
    """LTP with its regulariser, from a line through the dense model's own scores."""
    scores = sample_scores(model, TRAINING[:512], COLLATOR)
    return LearnedThresholds(
        quantile_line(scores, 0.3), unit=float(scores.mean()), temperature=(1.0, 0.1), learning_rate=0.01, regularizer=0.01
    )


def keep_ratios(model):
    """ToP under a constraint on FLOPs."""
    gates = RankGates(3, [1, 2], fine_start=(4.6, 0.5), coarse="on")
    constraint = Constraint(FlopsCost(model.config, "before_layer"), target=0.4, learning_rate=0.05)
    return LearnedKeepRatios(gates, constraint, learning_rate=0.1, score_temperature=1.0)


@pytest.mark.parametrize("learned", [thresholds, keep_ratios])
def test_needles_stay_and_noise_goes(learned, dense, tmp_path):
    model = tiny_model()
    model.load_state_dict(dense)
    pruner = learned(model)
    fit(Student(model, pruner), tmp_path / "soft", epochs=4, learning_rate=2e-4)
    model.set_pruning(pruner.pruning())
    fit(Student(model), tmp_path / "hard", epochs=1, learning_rate=6e-5)
    needles, noise = kept_shares(model, HELD_OUT)
    assert needles >= 0.99
    assert noise <= 0.4
    evaluation = evaluate(model, HELD_OUT, COLLATOR, LONGEST)
    assert evaluation.metrics["accuracy"] > 0.99
    assert evaluation.flops_reduction["packed"] > 1.5
