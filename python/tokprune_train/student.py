"""The module that is trained: a pruned model, and what is added to its task loss."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from .objectives.distillation import prediction_distillation


class SoftPruner(Protocol):
    """What learns where to prune: an nn.Module that weighs tokens while the model runs (see tokprune_kernels' soft pruning).

    begin: forget the last batch; which step comes, and how much of the training is over.
    penalty: the term that it adds to the loss of the batch that just ran, with the teacher's importance (T,) or None, and how
        much of the training is over, in [0, 1).
    parameter_groups: dicts for the optimiser.   after_step: put parameters back into their range.   metrics: numbers to log.
    """

    def begin(self, step: int, progress: float) -> None: ...

    def __call__(self, layer: int, importance: Tensor, weights: Tensor, cu_seqlens: Tensor) -> Tensor: ...

    def penalty(self, progress: float, teacher_importance: Tensor | None) -> Tensor: ...

    def parameter_groups(self) -> Iterable[dict]: ...

    def after_step(self) -> None: ...

    def metrics(self, progress: float) -> dict[str, float]: ...


class Student(nn.Module):
    """A pruned model with a classification or regression head, and its whole loss:

    (1 - w) * task loss + w * distillation from the teacher's logits + the soft pruner's penalty.

    model: what `tokprune_kernels.prune_model` returned.   pruner: learns where to prune (soft stage); None: the model prunes
    by its own configuration, really removing tokens (hard stage), or not at all.
    distillation: w in [0, 1]; 0 leaves the teacher out.   temperature: of the distillation.
    step, progress: how far the training is; the trainer sets them.   task_loss: of the last batch, without the penalty.
    """

    def __init__(self, model: nn.Module, pruner: nn.Module | None = None, distillation: float = 0.0, temperature: float = 1.0):
        super().__init__()
        if not 0 <= distillation <= 1:
            raise ValueError(f"distillation must be in [0, 1], the teacher's share of the loss, got {distillation}")
        self.model, self.pruner = model, pruner
        self.distillation, self.temperature = distillation, temperature
        self.step, self.progress, self.task_loss = 0, 0.0, None

    # The arguments are spelled out: transformers' Trainer reads from the signature what a model can take.
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        teacher_importance: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{"loss": scalar, "logits": (B, C)} of a padded batch, see data.encoding.Collator."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids, "labels": labels}
        if self.pruner is not None:
            self.pruner.begin(self.step, self.progress)
            inputs["soft_pruning"] = self.pruner
        output = self.model(**inputs)
        loss = output["loss"]
        if self.distillation:
            if teacher_logits is None:
                raise ValueError("distillation needs teacher_logits in the batch: run the teacher over the rows first")
            taught = prediction_distillation(output["logits"].float(), teacher_logits, self.temperature)
            loss = torch.lerp(loss.float(), taught, self.distillation)
        if self.pruner is not None:
            if teacher_importance is not None:
                teacher_importance = teacher_importance[attention_mask != 0]
            self.task_loss = float(loss.detach())
            loss = loss + self.pruner.penalty(self.progress, teacher_importance)
        return {"loss": loss, "logits": output["logits"]}
