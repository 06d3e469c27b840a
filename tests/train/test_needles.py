"""Both methods, soft stage and hard stage, learn to keep what decides and to drop the rest, on a task whose answer is known."""

import pytest
import torch
from tests.train.needles import COLLATOR, kept_shares, needle_rows, tiny_model
from tokprune_train.evaluation import evaluate
from tokprune_train.objectives.cost import FlopsCost
from tokprune_train.objectives.gates import RankGates
from tokprune_train.pruners.base import Constraint
from tokprune_train.pruners.ltp import LearnedThresholds
from tokprune_train.pruners.top import LearnedKeepRatios
from tokprune_train.student import Student
from tokprune_train.trainer import Settings, StudentTrainer

TRAINING, HELD_OUT = needle_rows(2048, seed=1), needle_rows(256, seed=2)


def fit(student, folder, epochs, lr=1e-3):
    settings = Settings(epochs=epochs, batch_size=32, learning_rate=lr, weight_decay=0.0)
    StudentTrainer(student, TRAINING, COLLATOR, settings, folder).train()


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    model = tiny_model()
    fit(Student(model), tmp_path_factory.mktemp("dense"), epochs=6, lr=2e-3)
    assert evaluate(model, HELD_OUT, COLLATOR, 64).metrics["accuracy"] > 0.99
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("method", ["ltp", "top"])
def test_needles_stay_and_noise_goes(method, dense, tmp_path):
    model = tiny_model()
    model.load_state_dict(dense)
    if method == "ltp":
        pruner = LearnedThresholds([0.01] * 3, unit=0.04, learning_rate=0.03, regularizer=0.3)
    else:
        cost = FlopsCost(model.config, "before_layer")
        pruner = LearnedKeepRatios(RankGates(3, [1, 2], coarse="on"), Constraint(cost, 0.5), learning_rate=0.1)
    fit(Student(model, pruner), tmp_path / "soft", epochs=6)
    model.set_pruning(pruner.pruning())
    fit(Student(model), tmp_path / "hard", epochs=1, lr=3e-4)
    needles, noise = kept_shares(model, HELD_OUT)
    print(method, pruner.pruning().values, needles, noise)
    assert needles >= 0.99
    assert noise <= 0.4
    assert evaluate(model, HELD_OUT, COLLATOR, 64).metrics["accuracy"] > 0.99
