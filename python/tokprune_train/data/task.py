"""What a data set asks of a model: which columns are texts and label, and what kind of label it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datasets import ClassLabel, Dataset, Value
from tokprune_kernels.cli.texts import PAIR_NAMES, TEXT_NAMES

from .reading import DataError

# Column names of the common data sets, the first that exists counts; those of the texts are the command line's everywhere.
LABEL_NAMES = ("label", "labels", "score")


@dataclass(frozen=True)
class Columns:
    """Names of the columns: text, pair (None for single texts), label."""

    text: str
    pair: str | None
    label: str


@dataclass(frozen=True)
class Task:
    """columns: where texts and labels are.   labels: name of each class, in the order of its number; None for regression.

    codes: value in the data -> number of the class; None for regression.
    """

    columns: Columns
    labels: tuple[str, ...] | None
    codes: dict | None

    @property
    def regression(self) -> bool:
        """Whether the label is a number to be predicted."""
        return self.labels is None

    @property
    def num_labels(self) -> int:
        """Outputs of the model's head."""
        return 1 if self.labels is None else len(self.labels)

    def target(self, value) -> int | float:
        """The number that the model is trained on; DataError for a label that the training rows do not have."""
        if self.codes is None:
            if not isinstance(value, (int, float)):
                raise DataError(f"label {value!r} is none that a regression can learn: it must be a number")
            return float(value)
        if value not in self.codes:
            raise DataError(f"label {value!r} is none that the task has: {_some(self.codes)}")
        return self.codes[value]


def find_columns(names: Sequence[str], text: str | None = None, pair: str | None = None, label: str | None = None) -> Columns:
    """The columns of a data set by their usual names, or those given; DataError naming the columns that exist."""
    return Columns(*find_texts(names, text, pair), _find(names, "label", label, LABEL_NAMES, True))


def find_texts(names: Sequence[str], text: str | None = None, pair: str | None = None) -> tuple[str, str | None]:
    """As `find_columns`, of the text and of the pair, None for single texts."""
    return _find(names, "text", text, TEXT_NAMES, True), _find(names, "pair", pair, PAIR_NAMES, False)


def _find(names: Sequence[str], what: str, given: str | None, usual: tuple[str, ...], needed: bool) -> str | None:
    candidates = usual if given is None else (given,)
    found = next((name for name in candidates if name in names), None)
    if found is None and (needed or given is not None):
        raise DataError(
            f"no {what} column: looked for {', '.join(map(repr, candidates))}, the data has "
            f"{', '.join(map(repr, names))}; name it with --{what}-column"
        )
    return found


def find_task(rows: Dataset, columns: Columns) -> Task:
    """What the labels of training rows are: floats = regression, ints 0..C-1 or strings = classes.

    Raises DataError for no rows, missing texts or labels, unlabelled rows (-1), or class numbers with holes.
    """
    if not len(rows):
        raise DataError("the data set has no rows")
    check_texts(rows, columns.text, columns.pair)
    feature = rows.features[columns.label]
    if not isinstance(feature, (ClassLabel, Value)):
        raise DataError(f"labels must be numbers or strings, got {rows[0][columns.label]!r}")
    values = rows.unique(columns.label)
    if None in values:
        raise DataError(f"some rows have no {columns.label!r}")
    if any(isinstance(value, float) and not value.is_integer() for value in values):
        return Task(columns, None, None)
    numbers = all(isinstance(value, (int, float)) for value in values)
    if numbers and min(values) < 0:
        raise DataError("labels below 0 are found: these rows are not labelled, choose a split that is")
    if len(values) < 2:
        raise DataError(f"all rows have the same label, {values[0]!r}: there is nothing to learn")
    if all(isinstance(value, str) for value in values):
        names = sorted(values)
        return Task(columns, tuple(names), {name: code for code, name in enumerate(names)})
    if not numbers:
        raise DataError(f"labels must be numbers or strings, got {_some(values)}")
    present = sorted(int(value) for value in values)
    classes = feature.num_classes if isinstance(feature, ClassLabel) else present[-1] + 1
    if classes > len(present) and not isinstance(feature, ClassLabel):
        raise DataError(f"class numbers must be 0 to {classes - 1} without holes, got {_some(present)}")
    names = feature.names if isinstance(feature, ClassLabel) else _names(rows, columns.label, classes)
    return Task(columns, tuple(names), {code: code for code in range(classes)})


def task_of_model(config, columns: Columns) -> Task:
    """The task that a trained classifier answers: its labels by number and by name; one output is regression."""
    if config.num_labels == 1:
        return Task(columns, None, None)
    names = tuple(str(config.id2label[code]) for code in range(config.num_labels))
    return Task(columns, names, {name: code for code, name in enumerate(names)} | {code: code for code in range(len(names))})


def check_texts(rows: Dataset, text: str, pair: str | None) -> None:
    """Raise DataError unless every row has its text and, where there are pairs, its pair."""
    for name in filter(None, (text, pair)):
        if name not in rows.column_names:
            raise DataError(f"no column {name!r} in this split; it has {', '.join(map(repr, rows.column_names))}")
        for number, value in enumerate(rows[name]):
            if not isinstance(value, str):
                raise DataError(f"row {number} has no text in {name!r}, but {value!r}")


def _names(rows: Dataset, label: str, classes: int) -> list[str]:
    """From a column "label_name", where there is one."""
    if "label_name" not in rows.column_names:
        return [f"LABEL_{code}" for code in range(classes)]
    names = dict(zip(rows[label], rows["label_name"]))
    return [str(names[code]) for code in range(classes)]


def _some(values) -> str:
    values = list(values)
    return ", ".join(map(repr, values[:8])) + (", ..." if len(values) > 8 else "")
