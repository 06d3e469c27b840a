"""What a model's head answers already: with which classes, in which order, or with a number; data is read in its terms."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from .reading import DataError


@dataclass(frozen=True)
class Head:
    """A head that has been trained.   names: of its classes, in the order of its outputs; None: it answers with one number."""

    names: tuple[str, ...] | None

    @property
    def is_named(self) -> bool:
        """Whether the classes have names of their own, not the LABEL_0, LABEL_1, ... that stand for numbers."""
        return self.names is not None and self.names != unnamed(len(self.names))

    def codes(self, names: Collection[str]) -> dict[str, int]:
        """The output that stands for each of these names, upper and lower case being the same where nothing else tells them apart.

        Raises DataError where the head does not have them all.
        """
        exact = {name: code for code, name in enumerate(self.names)}
        folded = {name.casefold(): code for name, code in exact.items()}
        loose = folded if len(folded) == len(exact) == len(self.names) else {}
        found = {name: exact.get(name, loose.get(name.casefold())) for name in names}
        if unknown := [name for name, code in found.items() if code is None]:
            raise DataError(
                f"label {unknown[0]!r} is none that the task has: {some(self.names)}. The model's classes have these names, the data's are "
                f"{some(sorted(names))}: give data with the model's, or write the data's into id2label of the model's config.json, in the "
                "order of its outputs"
            )
        return found


def unnamed(count: int) -> tuple[str, ...]:
    """What classes are called that have numbers only."""
    return tuple(f"LABEL_{code}" for code in range(count))


def head_of(config: Any) -> Head | None:
    """The head that a configuration says a checkpoint has; None for one without a head for whole texts.

    Raises ValueError for a head of another kind than one class of several, or one number, for each text.
    """
    if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        return None
    if config.problem_type == "multi_label_classification":
        raise ValueError(
            "the model's head gives a text several labels at once (problem_type multi_label_classification in its config.json): here a "
            "text has one label or a number; start from a model with such a head, or without one"
        )
    if config.num_labels == 1:
        return Head(None)
    if config.problem_type == "regression":
        raise ValueError(
            f"the model's head predicts {config.num_labels} numbers (problem_type regression in its config.json): here a text has one; "
            "start from a model with one output, or without a head"
        )
    return Head(tuple(str(config.id2label[code]) for code in range(config.num_labels)))


def some(values) -> str:
    """The first few of them, for a message."""
    values = list(values)
    return ", ".join(map(repr, values[:8])) + (", ..." if len(values) > 8 else "")
