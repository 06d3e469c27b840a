"""The module that is trained: a pruned model, and what is added to its task loss."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .data.encoding import PER_TOKEN
from .data.joining import likeliest
from .importance import Scored, run_scored
from .objectives.distillation import importance_distillation, prediction_distillation, state_distillation, token_distillation
from .states import layer_states, pooled_states
from .teacher import say


# What the importance of the dense model can be -> key of a row (teacher.teach).
IMPORTANCE_FROM = {"attention": "teacher_mean_importance", "saliency": "teacher_saliency"}


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


@dataclass(frozen=True)
class Teaching:
    """What the dense teacher adds to a student's loss.

    answers: share in [0, 1] of the loss that its logits have, the labels having the rest.   temperature: softens them.
    states: weight >= 0 of the distillation of its pooled states.   layers: of its first tokens' after every layer.
    tokens: of the states between the layers of the tokens still alive there, which takes a teacher beside the student; all but
        saliency it then says there.
    importance: of the importance of tokens, which every layer but the last learns, whose decision no layer follows.
    0 leaves out any.   importance_from: "attention", the mean importance over the dense model's layers, or "saliency", see there.
    """

    answers: float = 0.0
    states: float = 0.0
    layers: float = 0.0
    tokens: float = 0.0
    importance: float = 0.0
    importance_from: str = "attention"
    temperature: float = 1.0

    def __post_init__(self):
        if not 0 <= self.answers <= 1:
            raise ValueError(f"distillation must be in [0, 1], the teacher's share of the loss, got {self.answers}")
        weights = {"state": self.states, "layer": self.layers, "token": self.tokens, "importance": self.importance}
        for name, weight in weights.items():
            if not weight >= 0:
                raise ValueError(f"{name} distillation must be a weight of at least 0, got {weight}")
        if self.importance_from not in IMPORTANCE_FROM:
            raise ValueError(f"importance_from must be one of {', '.join(IMPORTANCE_FROM)}, got {self.importance_from!r}")

    @property
    def importance_key(self) -> str:
        """Of a row: what teaches importance."""
        return IMPORTANCE_FROM[self.importance_from]

    @property
    def wanted(self) -> list[str]:
        """What the teacher has to say, as keys of a row (teacher.teach)."""
        weights = {
            "teacher_logits": self.answers,
            "teacher_state": self.states,
            "teacher_layers": self.layers,
            self.importance_key: self.importance,
        }
        return [name for name, weight in weights.items() if weight]

    @property
    def beside(self) -> bool:
        """Whether the teacher runs on every batch; else it speaks on every row beforehand."""
        return self.tokens > 0


class _Seen(NamedTuple):
    """A forward pass: the model's output, with hidden states where layers or tokens are taught, its pooled states (B, H) where they
    are, and what it made of its tokens in each layer where that or tokens are."""

    output: dict
    state: Tensor | None
    scored: list[Scored]


class Student(nn.Module):
    """A pruned model with a classification or regression head, and its whole loss:

    (1 - w) * task loss + w * distillation from the teacher's logits + v * distillation from its pooled states
    + u * distillation from its states after every layer + r * distillation from its survivors' states
    + t * distillation from its importance + the soft pruner's penalty.

    model: what `tokprune_kernels.prune_model` returned.   pruner: learns where to prune (soft stage); None: the model prunes
    by its own configuration, really removing tokens (hard stage), or not at all.
    teaching: w, v, u, r, t and the temperature of the logits' distillation.
    teacher: the dense model, which runs on every batch; needed where r is not 0.
    step, progress: how far the training is; the trainer sets them.   task_loss: of the last batch, a scalar without the penalty.
    """

    def __init__(
        self, model: nn.Module, pruner: nn.Module | None = None, teaching: Teaching = Teaching(), teacher: nn.Module | None = None
    ):
        super().__init__()
        if teaching.beside and teacher is None:
            raise ValueError("token distillation needs the dense teacher itself, to run it beside the student: give teacher")
        self.model, self.pruner, self.teaching = model, pruner, teaching
        self.step, self.progress, self.task_loss = 0, 0.0, None
        # No submodule: it is neither trained nor saved.
        self._teacher = (None if teacher is None else teacher.requires_grad_(False).eval(),)

    # The arguments are spelled out: transformers' Trainer reads from the signature what a model can take.
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        unlabelled: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        teacher_state: Tensor | None = None,
        teacher_layers: Tensor | None = None,
        teacher_importance: Tensor | None = None,
        teacher_mean_importance: Tensor | None = None,
        teacher_saliency: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{"loss": scalar, "logits": (B, C)} of a padded batch, see data.encoding.Collator."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:  # model types without them do not take the name
            inputs["token_type_ids"] = token_type_ids
        places = (attention_mask != 0).flatten().nonzero().flatten()
        told = {
            "teacher_logits": teacher_logits,
            "teacher_state": teacher_state,
            "teacher_layers": teacher_layers,
            "teacher_importance": teacher_importance,
            "teacher_mean_importance": teacher_mean_importance,
            "teacher_saliency": teacher_saliency,
        }
        if self.teaching.beside:
            told |= self._told_beside(inputs)
            if unlabelled is not None:
                labels = torch.where(unlabelled, likeliest(told["teacher_logits"], labels.is_floating_point()), labels)
        taught = {name: _packed(values, places) if name in PER_TOKEN else values for name, values in told.items()}
        self._check_taught(taught)
        inputs["labels"] = labels
        if self.pruner is not None:
            self.pruner.begin(self.step, self.progress)
            inputs["soft_pruning"] = self.pruner
        seen = self._run(inputs, places)
        loss = self._taught(seen, taught, places)
        if self.pruner is not None:
            self.task_loss = loss.detach()
            loss = loss + self.pruner.penalty(self.progress, taught["teacher_importance"])
        return {"loss": loss, "logits": seen.output["logits"]}

    def _told_beside(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the teacher says of this batch (teacher.say): all that is wanted, its last layer's importance, its hidden states."""
        teacher = self._teacher[0].to(inputs["input_ids"].device)
        return say(teacher, inputs, {*self.teaching.wanted, "teacher_importance"}, states=True)

    def _run(self, inputs: dict, places: Tensor) -> _Seen:
        if self.teaching.layers or self.teaching.tokens:
            inputs["output_hidden_states"] = True
        with pooled_states(self.model) if self.teaching.states else nullcontext([None]) as states:
            if self.teaching.importance or self.teaching.tokens:
                output, scored = run_scored(self.model, self.pruner, inputs, places)
            else:
                output, scored = self.model(**inputs), []
        return _Seen(output, states[-1], scored)

    def _check_taught(self, taught: dict[str, Tensor | None]) -> None:
        for name in self.teaching.wanted:
            if taught[name] is None:
                raise ValueError(f"distillation needs {name} in the batch: run the teacher over the rows first")

    def _taught(self, seen: _Seen, taught: dict, places: Tensor) -> Tensor:
        """The task's loss with the teacher's part; places: (T,), where in (B, L), flat, tokens are."""
        output, loss, teaching = seen.output, seen.output["loss"], self.teaching
        if teaching.answers:
            answers = prediction_distillation(output["logits"].float(), taught["teacher_logits"], teaching.temperature)
            loss = torch.lerp(loss.float(), answers, teaching.answers)
        if teaching.states:
            loss = loss + teaching.states * state_distillation(seen.state.float(), taught["teacher_state"])
        if teaching.layers:
            loss = loss + teaching.layers * state_distillation(layer_states(output).float(), taught["teacher_layers"].float())
        return loss + self._not_the_pruners(self._taught_of_tokens(seen, taught, places))

    def _taught_of_tokens(self, seen: _Seen, taught: dict, places: Tensor) -> Tensor:
        """How tokens are scored in every layer but the last, which no layer follows, and what survivors are on entering every layer
        but the first, which all enter."""
        teaching, loss = self.teaching, seen.output["logits"].new_zeros((), dtype=torch.float32)
        if len(seen.scored) < 2:
            return loss
        if teaching.importance:
            told = taught[teaching.importance_key]
            apart = [importance_distillation(layer.importance, told, layer.alive, layer.cu_seqlens) for layer in seen.scored[:-1]]
            loss = loss + teaching.importance * torch.stack(apart).mean()
        if teaching.tokens:
            entering = list(zip(seen.output["hidden_states"], taught["hidden_states"], seen.scored))[1:]
            pairs = [(_packed(own, places), _packed(dense, places), layer) for own, dense, layer in entering]
            apart = [token_distillation(own, dense, layer.alive, layer.cu_seqlens) for own, dense, layer in pairs]
            loss = loss + teaching.tokens * torch.stack(apart).mean()
        return loss

    def _not_the_pruners(self, loss: Tensor) -> Tensor:
        """The loss without its gradient in the pruner's parameters, for one more backward pass.

        How well the model scores tokens, and what survivors are to it, is for its weights to learn: in the pruner it pays to let go
        of tokens that are hard to get right, or to keep those that are easy, whatever the task needs and the constraint asks.
        """
        learned = () if self.pruner is None else self.pruner.parameters()
        taken = [parameter for parameter in learned if parameter.requires_grad]
        if not (taken and loss.requires_grad):
            return loss
        gradients = torch.autograd.grad(loss, taken, retain_graph=True, allow_unused=True)
        terms = ((gradient * parameter).sum() for gradient, parameter in zip(gradients, taken, strict=True) if gradient is not None)
        opposed = sum(terms, loss.new_zeros(()))
        return loss - (opposed - opposed.detach())  # of value 0


def _packed(values: Tensor | None, places: Tensor) -> Tensor | None:
    """(T, ...) of the tokens that are there, from (B, L, ...)."""
    return None if values is None else values.flatten(0, 1).index_select(0, places)
