"""The models that a training starts from and is taught by: loaded whole, with a head that fits the task."""

from __future__ import annotations

from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from tokprune_kernels.cli.weights import refuse_missing, refuse_not_finite

from .data.heads import Head, head_of, some, unnamed
from .data.task import Task

# What configurations call the dropout of hidden states and of attention: BERT's, DistilBERT's.
_DROPOUT = (("hidden_dropout_prob", "attention_probs_dropout_prob"), ("dropout", "attention_dropout"))


def trained_head(name: str) -> Head | None:
    """The head that a checkpoint (folder or hub id) comes with, None where it has none; ValueError for one of a kind that is not trained here."""
    return head_of(AutoConfig.from_pretrained(name))


def need_trained_head(name: str) -> None:
    """Raise ValueError for a checkpoint without a head: a new one would be random, and so would its answers."""
    if trained_head(name) is None:
        raise ValueError(
            f"{name!r} has no trained head, so that there are no answers of a dense model to learn from or to stay near: first "
            "`tokprune train dense`, and start from what it saves"
        )


def load_classifier(name: str, task: Task, dropout: float | None = None) -> nn.Module:
    """A checkpoint with the head that it has, which must answer the task, or else a new one.

    dropout: of the hidden states; None: what the model has. There is none of attention.

    Raises ValueError where it answers another task, CliError where its weights are not whole or not finite.
    """
    config = AutoConfig.from_pretrained(name)
    head = head_of(config)
    _check_answers(name, head, task)
    names = task.labels or ("LABEL_0",)
    hidden, attention = next(names for names in _DROPOUT if hasattr(config, names[0]))
    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            name,
            num_labels=task.num_labels,
            id2label=dict(enumerate(names)),
            label2id={name: code for code, name in enumerate(names)},
            problem_type="regression" if task.regression else "single_label_classification",
            output_loading_info=True,
            trust_remote_code=False,
            **{attention: 0.0} | ({} if dropout is None else {hidden: dropout}),
        )
    except Exception as error:  # tensors of other shapes than config.json says, and whatever the weights' format raises
        raise ValueError(f"cannot load {name!r}: {' '.join(str(error).split())[:300]}") from error
    refuse_missing(name, model, loading["missing_keys"], has_head=head is not None)
    refuse_not_finite(name, model)
    return model


def _check_answers(name: str, head: Head | None, task: Task) -> None:
    """The outputs of a teacher must be those of the task, one by one; those of the model to start from are: the task was found by them."""
    if head is None:
        return
    outputs = 1 if head.names is None else len(head.names)
    if outputs != task.num_labels:
        raise ValueError(f"{name!r} has {outputs} output(s), and the task {task.num_labels}: a teacher must answer what is trained")
    if head.is_named and task.labels != unnamed(outputs) and _differ(head.names, task.labels):
        raise ValueError(
            f"the classes of {name!r} are {some(head.names)}, in this order, and those of the training are {some(task.labels)}: a teacher must "
            "answer the same ones in the same order"
        )


def _differ(names: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return [name.casefold() for name in names] != [name.casefold() for name in others]
