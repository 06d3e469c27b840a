"""transformers' Trainer around a student: its parameter groups, its log, the same bits twice and after an interruption."""

import json

import pytest
import torch
from tokprune_train.objectives.cost import FlopsCost
from tokprune_train.objectives.gates import RankGates
from tokprune_train.pruners.base import Constraint
from tokprune_train.pruners.ltp import LearnedThresholds
from tokprune_train.pruners.top import LearnedKeepRatios
from tokprune_train.student import Student
from tokprune_train.trainer import Settings, StudentTrainer, parameter_groups, train, training_arguments
from transformers import TrainerCallback

from .needles import COLLATOR, needle_rows, tiny_model

ROWS = needle_rows(32, seed=1)
SETTINGS = Settings(epochs=3, batch_size=8, learning_rate=1e-3, log_every=4)  # 12 steps


def ltp(model):
    cost = FlopsCost(model.config, "after_attention")
    return LearnedThresholds([0.02, 0.03, 0.04], unit=0.04, learning_rate=0.1, constraint=Constraint(cost, 0.4))


def top(model):
    cost = FlopsCost(model.config, "before_layer")
    gates = RankGates(3, [1, 2], fine_start=0.5, coarse_start=0.0)  # undecided, so that the samples matter
    return LearnedKeepRatios(gates, Constraint(cost, 0.4), learning_rate=0.1)


def none(model):
    return None


PRUNERS = pytest.mark.parametrize("make_pruner", [none, ltp, top], ids=["dense", "ltp", "top"])


def student_of(make_pruner, dropout=0.1):
    model = tiny_model(layers=3)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    for layer in model.bert.encoder.layer:
        layer.attention.self.dropout.p = 0.0  # attention maps are never formed
    return Student(model, make_pruner(model))


def state_of(student):
    return {name: tensor.clone() for name, tensor in student.state_dict().items()}


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def fit(student, folder, settings=SETTINGS, resume=False, *callbacks):
    folder.mkdir(exist_ok=True)
    trainer = StudentTrainer(student, ROWS, COLLATOR, settings, folder)
    for callback in callbacks:
        trainer.add_callback(callback)
    train(trainer, folder, resume)
    return trainer


class TestParameterGroups:
    def test_every_parameter_once(self):
        for make_pruner in (none, ltp, top):
            student = student_of(make_pruner)
            grouped = [id(p) for group in parameter_groups(student, SETTINGS) for p in group["params"]]
            assert sorted(grouped) == sorted(id(p) for p in student.parameters())

    def test_decay_of_matrices_only(self):
        student = student_of(ltp)
        names = {id(p): name for name, p in student.named_parameters()}
        decaying, others, thresholds, multipliers = parameter_groups(student, Settings(weight_decay=0.3, learning_rate=0.5))
        assert {group["weight_decay"] for group in (others, thresholds, multipliers)} == {0.0}
        assert decaying["weight_decay"] == 0.3 and decaying["lr"] == others["lr"] == 0.5
        assert all(names[id(p)].endswith("weight") and "LayerNorm" not in names[id(p)] for p in decaying["params"])
        assert all(names[id(p)].endswith("bias") or "LayerNorm" in names[id(p)] for p in others["params"])

    def test_the_pruners_own(self):
        thresholds, multipliers = parameter_groups(student_of(ltp), SETTINGS)[2:]
        assert thresholds["lr"] == 0.1 and not thresholds.get("maximize") and len(thresholds["params"]) == 1
        assert multipliers["lr"] == 0.02 and multipliers["maximize"] is True and len(multipliers["params"]) == 2
        gates, multipliers = parameter_groups(student_of(top), SETTINGS)[2:]
        assert gates["lr"] == 0.1 and len(gates["params"]) == 2 and multipliers["maximize"] is True

    def test_the_optimiser_has_them(self, tmp_path):
        trainer = StudentTrainer(student_of(ltp), ROWS, COLLATOR, SETTINGS, tmp_path)
        groups = trainer.create_optimizer().param_groups
        assert [group["lr"] for group in groups] == [1e-3, 1e-3, 0.1, 0.02]
        assert [group["maximize"] for group in groups] == [False, False, False, True]

    def test_frozen_embeddings(self, tmp_path):
        student = student_of(none)
        before = state_of(student)
        fit(student, tmp_path, Settings(epochs=0.5, batch_size=8, learning_rate=1e-2, freeze_embeddings=True))
        changed = {name for name, tensor in state_of(student).items() if not torch.equal(tensor, before[name])}
        assert changed and not any("embeddings" in name for name in changed)


class TestSchedule:
    def test_steps(self, tmp_path):
        arguments = training_arguments(Settings(epochs=2.5, batch_size=10, warmup=0.1, checkpoints=4), 105, tmp_path)
        assert (arguments.max_steps, arguments.warmup_steps, arguments.save_steps) == (25, 2, 5)
        assert training_arguments(Settings(epochs=0.1, batch_size=32), 40, tmp_path).max_steps == 1

    def test_batch_is_shared_out(self, tmp_path, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "4")
        with pytest.raises(ValueError, match="a batch of 30 rows cannot be shared out among 4 processes"):
            training_arguments(Settings(batch_size=30), 100, tmp_path)

    def test_fewer_rows_than_a_batch(self, tmp_path):
        """The trainer would drop the only batch and do nothing."""
        with pytest.raises(ValueError, match="20 rows.*batch of 32"):
            training_arguments(Settings(batch_size=32), 20, tmp_path)

    @PRUNERS
    def test_the_student_is_told_how_far_it_is(self, make_pruner, tmp_path):
        student, told = student_of(make_pruner), []
        student.register_forward_pre_hook(lambda module, args: told.append((module.step, module.progress)))
        fit(student, tmp_path)
        assert told == [(step, step / 12) for step in range(12)]


class TestLog:
    def test_lines(self, tmp_path):
        fit(student_of(ltp), tmp_path)
        lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [4, 8, 12, 12]  # the last one sums up
        for line in lines[:3]:
            assert {"loss", "learning_rate", "theta_0", "theta_2", "temperature", "saved", "target", "lambda_linear"} <= line.keys()
        assert "train_runtime" in lines[-1]

    def test_a_new_training_starts_a_new_log(self, tmp_path):
        for _ in range(2):
            fit(student_of(none), tmp_path)
        assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4

    def test_keep_ratios(self, tmp_path):
        fit(student_of(top), tmp_path)
        first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
        assert {"keep_0", "keep_1", "keep_2", "saved", "lambda_quadratic"} <= first.keys()


class Interrupt(TrainerCallback):
    """Stops the program right after its first checkpoint."""

    def on_save(self, args, state, control, **kwargs):
        raise KeyboardInterrupt


@PRUNERS
def test_the_same_seed_gives_the_same_bits(make_pruner, tmp_path):
    states = []
    for number in range(2):
        torch.manual_seed(number)  # what was drawn before is of no matter
        student = student_of(make_pruner)
        fit(student, tmp_path / str(number))
        states.append(state_of(student))
    assert_same_bits(*states)


def test_another_seed_gives_other_weights(tmp_path):
    states = []
    for seed in range(2):
        student = student_of(none)
        fit(student, tmp_path / str(seed), Settings(epochs=1, batch_size=8, seed=seed))
        states.append(state_of(student))
    assert not torch.equal(states[0]["model.classifier.weight"], states[1]["model.classifier.weight"])


@PRUNERS
def test_resuming_gives_the_bits_of_the_uninterrupted_training(make_pruner, tmp_path):
    """Weights, thresholds or gates, and multipliers; the log goes on where it stopped."""
    settings = Settings(**{**vars(SETTINGS), "checkpoints": 1})
    whole = student_of(make_pruner)
    fit(whole, tmp_path / "whole", settings)

    folder = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        fit(student_of(make_pruner), folder, settings, False, Interrupt())
    resumed = student_of(make_pruner)
    trainer = fit(resumed, folder, settings, True)
    assert trainer.state.global_step == 12
    assert_same_bits(state_of(whole), state_of(resumed))
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps == [4, 8, 12, 12]


def test_resuming_without_a_checkpoint_starts_anew(tmp_path):
    student, other = student_of(none), student_of(none)
    fit(student, tmp_path / "a", SETTINGS, True)
    fit(other, tmp_path / "b")
    assert_same_bits(state_of(student), state_of(other))
