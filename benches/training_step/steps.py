"""The contenders: one training step of the same model, loss and optimiser, by Hugging Face's eager layers and by ours."""

from __future__ import annotations

import torch
from tokprune_train.calibration.scores import quantile_line, sample_scores
from tokprune_train.data.encoding import Collator
from tokprune_train.pruners.ltp import LearnedThresholds
from tokprune_train.student import Student
from tokprune_train.trainer import Settings, parameter_groups
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

import tokprune_kernels as tk

from .batches import MODEL
from .eager_ltp import EagerLTP

EAGER, OURS_HIDDEN, OURS_ATTENTION = "hf_eager", "ours_hidden", "ours_attention"
MASKS = {EAGER: "hidden", OURS_HIDDEN: "hidden", OURS_ATTENTION: "attention"}
LAMBDA = 0.05


def load_model(labels: int) -> nn.Module:
    """MiniLM-L6 with its real weights, a seeded head for `labels` classes, and no dropout, which no two packings share."""
    logging.set_verbosity_error()  # it would say that the head is new
    logging.disable_progress_bar()
    torch.manual_seed(0)
    no_dropout = {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
    return AutoModelForSequenceClassification.from_pretrained(
        MODEL, num_labels=labels, attn_implementation="eager", **no_dropout
    )


def start_line(rows: list[dict], labels: int) -> tuple[list[float], float]:
    """Where the LTP recipe lets thresholds start on these texts, and the unit that it counts them in."""
    scores = sample_scores(tk.prune_model(load_model(labels), None), rows, Collator(0), batch_size=8)
    return quantile_line(scores, final=0.3), float(scores.median())


def student_of(contender: str, labels: int, start: tuple[list[float], float], masks: str | None = None) -> nn.Module:
    """A contender's module; another `masks` than its own is for checking one with the other."""
    base, unit = start
    pruner = LearnedThresholds(base, unit, regularizer=LAMBDA, masks=masks or MASKS[contender], score_denominator="kept")
    model = load_model(labels)
    return EagerLTP(model, pruner) if contender == EAGER else Student(tk.prune_model(model, None), pruner)


class TrainingStep:
    """Forward, backward and AdamW as tokprune_train's trainer sets it up; dtype: "fp32", or "bf16" by autocast."""

    def __init__(self, student: nn.Module, dtype: str):
        self.student, self.dtype = student.train(), dtype
        self.optimizer = torch.optim.AdamW(parameter_groups(student, Settings()), fused=True)

    def gradients(self, batch: dict[str, Tensor]) -> Tensor:
        """Leave the gradients of a batch in the parameters and give its loss."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "bf16"):
            loss = self.student(**batch)["loss"]
        loss.backward()
        return loss.detach()

    def __call__(self, batch: dict[str, Tensor]) -> None:
        self.gradients(batch)
        self.optimizer.step()
        self.optimizer.zero_grad()
