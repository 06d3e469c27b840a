"""One process of tests/train/test_processes.py: trains a student and saves what it learned. Run by hand or by torchrun."""

import json
import sys
from pathlib import Path

import torch
from tests.train.needles import COLLATOR, needle_rows, tiny_model
from tokprune_train import processes
from tokprune_train.objectives.cost import FlopsCost
from tokprune_train.objectives.gates import RankGates
from tokprune_train.pruners.base import Constraint
from tokprune_train.pruners.ltp import LearnedThresholds
from tokprune_train.pruners.top import LearnedKeepRatios
from tokprune_train.student import Student, Teaching
from tokprune_train.teacher import teach
from tokprune_train.trainer import Settings, StudentTrainer


def student_of(method):
    """Without dropout, which two processes cannot draw alike; multipliers away from 0, so that the cost has a gradient at once."""
    model = tiny_model()
    if method == "ltp":
        constraint = Constraint(FlopsCost(model.config, "after_attention"), 0.4, ramp=0.5, learning_rate=0.1)
        pruner = LearnedThresholds([0.02, 0.03, 0.04], unit=0.04, learning_rate=0.05, regularizer=0.1, constraint=constraint)
    else:
        constraint = Constraint(FlopsCost(model.config, "before_layer"), 0.4, ramp=0.5, learning_rate=0.1)
        gates = RankGates(3, [1, 2], fine_start=0.5, coarse_start=0.5)
        pruner = LearnedKeepRatios(gates, constraint, learning_rate=0.05, ranking=0.1, ranked_layers=[1])
    with torch.no_grad():
        pruner.lagrangian.quadratic.fill_(5.0)
    for name, parameter in model.named_parameters():
        if name.endswith("key.bias"):  # softmax does not see it: of the rounding that is its gradient Adam would make steps
            parameter.requires_grad_(False)
    return Student(model, pruner, Teaching(answers=0.5, tokens=0.1, importance=0.1), tiny_model(seed=1))


def main(method, folder):
    torch.set_num_threads(1)
    student, rows = student_of(method), needle_rows(48, seed=1)
    teach(tiny_model(seed=1), rows, COLLATOR, {"teacher_logits", "teacher_importance", "teacher_mean_importance"})
    settings = Settings(epochs=2, batch_size=8, learning_rate=1e-3, log_every=1)
    StudentTrainer(student, rows, COLLATOR, settings, Path(folder)).train()
    if processes.is_first():
        torch.save(student.state_dict(), Path(folder) / "state.pt")
        (Path(folder) / "processes.json").write_text(json.dumps(processes.count()))
    processes.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
