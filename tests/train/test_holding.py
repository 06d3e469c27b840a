"""The constraint in the hard stage: met anew while weights move, and gone on with after an interruption."""

import tokprune_kernels as tk
import torch
from tokprune_train.calibration.fit import fit_to_target
from tokprune_train.data.encoding import model_inputs
from tokprune_train.holding import SHARES, HeldToConstraint
from tokprune_train.objectives.cost import FlopsCost
from tokprune_train.student import Student
from tokprune_train.trainer import Settings
from transformers import TrainerCallback

from .needles import COLLATOR, needle_rows, tiny_model
from .test_trainer import SETTINGS, assert_same_bits, fit, state_of

TARGET = 0.4


def held(folder, settings=SETTINGS, resume=False, *callbacks):
    """The student, and the factors by which its thresholds changed each time."""
    model, rows, changes = tiny_model(layers=3), needle_rows(32, seed=1), []
    cost = FlopsCost(model.config, "after_attention")

    def meet(pruning):
        met = fit_to_target(model, pruning, cost, TARGET, rows, COLLATOR)
        changes.append(met.thresholds[0] / pruning.thresholds[0])
        return met

    model.set_pruning(meet(tk.PruningConfig.ltp([0.02, 0.03, 0.04])))
    student = Student(model)
    fit(student, folder, settings, resume, HeldToConstraint(model, meet), *callbacks)
    return student, changes


def saved_by(student):
    """The share of the FLOPs that is saved on the rows."""
    inputs = model_inputs(COLLATOR(needle_rows(32, seed=1)))
    lengths = student.model.eval()(**inputs, output_pruning=True).pruning.kept_lengths.double()
    return 1 - float(FlopsCost(student.model.config, "after_attention")(lengths, lengths[0]))


class Sharpened(TrainerCallback):
    """After the first step attention is sharper, as if much had been learned: fewer tokens score above any threshold."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == 1:
            with torch.no_grad():
                for layer in model.model.bert.encoder.layer:
                    layer.attention.self.query.weight.mul_(40)


def test_met_on_the_way(tmp_path):
    """The scores have moved, the thresholds follow, and what is saved at the end is what was asked for."""
    student, changes = held(tmp_path, SETTINGS, False, Sharpened())
    assert len(changes) == 1 + len(SHARES) and abs(changes[1] - 1) > 0.02
    assert abs(saved_by(student) - TARGET) < 0.03


def test_goes_on_with_the_pruning_of_the_checkpoint(tmp_path):
    """Interrupted after the first change: the same thresholds and bits as in one go."""
    whole, _ = held(tmp_path / "whole", SETTINGS)

    class Stop(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            control.should_training_stop = True

    settings = Settings(epochs=3, batch_size=8, learning_rate=1e-3, log_every=4, checkpoints=1)
    held(tmp_path / "parts", settings, False, Stop())
    resumed, changes = held(tmp_path / "parts", settings, True)
    assert len(changes) < 1 + len(SHARES), "what came before the checkpoint is not done again"
    assert resumed.model.config.pruning == whole.model.config.pruning
    assert_same_bits(state_of(whole), state_of(resumed))
