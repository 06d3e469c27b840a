"""What a data set asks of a model: which columns are texts and label, and what kind of label it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from datasets import ClassLabel, Dataset, Value
from tokprune_kernels.cli.texts import PAIR_NAMES, TEXT_NAMES

from .heads import Head, some, unnamed
from .reading import DataError

# Column names of the common data sets, the first that exists counts; those of the texts are the command line's everywhere.
LABEL_NAMES = ("label", "labels", "score")
# float32's, in which a loss is computed.
_LARGEST = 3.4e38


@dataclass(frozen=True)
class Columns:
    """Names of the columns: text, pair (None for single texts), label."""

    text: str
    pair: str | None
    label: str


@dataclass(frozen=True)
class Task:
    """columns: where texts and labels are.   labels: name of each class, in the order of the model's outputs; None for regression.

    codes: a label of the data (`read_labels`) -> number of the class; None for regression.
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
        """The number that the model is trained on; DataError for a label that the task does not have."""
        if self.codes is None:
            number = _number(value)
            if number is None:
                raise DataError(f"label {value!r} is none that a regression can learn: it must be a number")
            if not abs(number) <= _LARGEST:
                raise DataError(f"label {value!r} is none that a regression can learn: it must be finite, up to {_LARGEST:.1e}")
            return number
        if isinstance(value, list) or value not in self.codes:
            raise DataError(f"label {value!r} is none that the task has: {some(self.codes)}")
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


def find_task(rows: Dataset, columns: Columns, head: Head | None = None) -> Task:
    """What the labels of training rows are: with a fraction = regression, numbers 0..C-1 or names = classes.

    head: of the model to start from, which has learned already which output is what: the data is read in its terms.

    Raises DataError for no rows, missing texts or labels, unlabelled rows (-1), class numbers with holes, and labels that the head does
    not have.
    """
    if not len(rows):
        raise DataError("the data set has no rows")
    check_texts(rows, columns.text, columns.pair)
    values = _labels_found(rows, columns)
    if len(set(values)) < 2 and not any(_has_fraction(value) for value in values) and (head is None or head.names):
        _check_classes(values)
        raise DataError(f"all rows have the same label, {values[0]!r}: there is nothing to learn")
    if head is not None:
        return task_of_head(head, rows, columns)
    if _are_numbers(values) and any(_has_fraction(value) for value in values):
        return Task(columns, None, None)
    _check_classes(values)
    numbers, names = _numbered(rows, columns.label)
    _check_holes(numbers)
    if names is not None:
        return Task(columns, names, {name: code for code, name in enumerate(names)} | dict(zip(numbers, numbers)))
    if all(isinstance(value, str) for value in values):
        names = sorted(values, key=lambda name: (_number(name) is None, _number(name) or 0, name))
        return Task(columns, tuple(names), {name: code for code, name in enumerate(names)})
    present = sorted(int(value) for value in values)
    _check_holes(present)
    return Task(columns, unnamed(len(present)), {code: code for code in present})


def task_of_head(head: Head, rows: Dataset, columns: Columns) -> Task:
    """The task that a trained head answers, on these rows: their names are its names, whatever number either gives them, and numbers
    without a name are its own. Raises DataError for labels that it does not have."""
    values = _labels_found(rows, columns)
    if head.names is None:
        if not _are_numbers(values):
            raise DataError(f"the model answers with a number (it has one output), and the labels are {some(values)}: give a model of such classes")
        return Task(columns, None, None)
    if _are_numbers(values) and any(_has_fraction(value) for value in values):
        raise DataError(
            f"labels are numbers with a fraction ({some(values)}), and the model answers with one of {len(head.names)} classes "
            f"({some(head.names)}): give a model with one output, or without a head"
        )
    _check_classes(values)
    count = len(head.names)
    own = {name: code for code, name in enumerate(head.names)} | {code: code for code in range(count)}
    numbers, names = _numbered(rows, columns.label)
    if names is not None and (head.is_named or numbers[-1] >= count):
        codes = head.codes(names)
        return Task(columns, head.names, own | codes | {number: codes[name] for number, name in zip(numbers, names)})
    if names is not None:  # the model's classes have numbers only: they are the data's
        labels = names if len(names) == count else head.names
        return Task(columns, labels, own | dict(zip(names, numbers)))
    if all(isinstance(value, str) for value in values):
        if not head.is_named and set(values) <= {str(code) for code in range(count)}:
            return Task(columns, head.names, own | {str(code): code for code in range(count)})
        return Task(columns, head.names, own | head.codes(values))
    if unknown := [value for value in values if value not in own]:
        raise DataError(f"label {unknown[0]!r} is none that the task has: the model has {count} classes, {some(head.names)}")
    return Task(columns, head.names, own)


def read_labels(rows: Dataset, label: str) -> list:
    """The rows' labels: names where the data has them (a ClassLabel, or a column "label_name"), else what stands there."""
    numbers, names = _numbered(rows, label)
    if names is None:
        return list(rows[label])
    named = dict(zip(numbers, names))
    return [named.get(value, value) for value in rows[label]]


def _numbered(rows: Dataset, label: str) -> tuple[list[int], tuple[str, ...] | None]:
    """(numbers, their names), in the order of the numbers; ([], None) where the data does not name them."""
    feature = rows.features[label]
    if isinstance(feature, ClassLabel):
        return list(range(feature.num_classes)), tuple(feature.names)
    found = rows.unique(label)
    if "label_name" not in rows.column_names or not _are_plain_numbers(found) or any(map(_has_fraction, found)) or max(found, default=-1) < 0:
        return [], None
    named = sorted(set(zip(rows[label], map(str, rows["label_name"]))))
    numbers, names = zip(*((int(number), name) for number, name in named if number >= 0))
    if len(set(numbers)) < len(numbers) or len(set(names)) < len(names):
        raise DataError(f"the column 'label_name' does not give each number in {label!r} one name of its own: {some(named)}")
    return list(numbers), names


def _labels_found(rows: Dataset, columns: Columns) -> list:
    """Each label once. Raises DataError for what is no label."""
    if columns.label not in rows.column_names:
        raise DataError(f"no column {columns.label!r} in this split; it has {', '.join(map(repr, rows.column_names))}")
    if not isinstance(rows.features[columns.label], (ClassLabel, Value)):
        raise DataError(f"labels must be numbers or strings, got {rows[0][columns.label]!r}")
    values = rows.unique(columns.label)
    if None in values:
        raise DataError(f"some rows have no {columns.label!r}")
    strings = [value for value in values if isinstance(value, str)]
    if not strings and not _are_plain_numbers(values) or strings and len(strings) < len(values):
        raise DataError(f"labels must be numbers or strings, got {some(values)}")
    if broken := [value for value in values if isinstance(value, float) and not math.isfinite(value)]:
        raise DataError(f"labels must be finite numbers, got {some(broken)}")
    return values


def _check_holes(numbers: list[int]) -> None:
    if numbers != list(range(len(numbers))):
        raise DataError(f"class numbers must be 0 to {numbers[-1]} without holes, got {some(numbers)}")


def _check_classes(values) -> None:
    numbers = [value for value in values if not isinstance(value, str)]
    if numbers and min(numbers) < 0:
        raise DataError("labels below 0 are found: these rows are not labelled, choose a split that is")


def _are_plain_numbers(values) -> bool:
    return all(isinstance(value, (int, float)) for value in values)


def _are_numbers(values) -> bool:
    """Numbers, or strings that all are: what a file of another program may write them as."""
    return all(_number(value) is not None for value in values)


def _number(value) -> float | None:
    if not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _has_fraction(value) -> bool:
    number = _number(value)
    return number is not None and not number.is_integer()


def check_texts(rows: Dataset, text: str, pair: str | None) -> None:
    """Raise DataError unless every row has its text and, where there are pairs, its pair."""
    for name in filter(None, (text, pair)):
        if name not in rows.column_names:
            raise DataError(f"no column {name!r} in this split; it has {', '.join(map(repr, rows.column_names))}")
        for number, value in enumerate(rows[name]):
            if not isinstance(value, str):
                raise DataError(f"row {number} has no text in {name!r}, but {value!r}")
