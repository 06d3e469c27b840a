"""Rows of a local file, in memory: JSON lines, a JSON list, CSV or TSV, each also packed by gzip; read by us, strictly.

The readers of `datasets` keep what they once read under a file's path and time, take signs in a path for patterns, guess a column's
type from its first rows, and say of a broken file neither its name nor the line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset
from tokprune_kernels.cli.errors import CliError
from tokprune_kernels.cli.lines import json_objects, text_lines
from tokprune_kernels.cli.texts import JSON_SUFFIXES, PAIR_NAMES, TEXT_NAMES

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*JSON_SUFFIXES, *(suffix + packed for suffix in _SEPARATORS for packed in ("", ".gz")))
_KINDS = {str: "a string", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?")
_LONGEST_CELL = 2**31 - 1  # csv's own limit is 131,072 characters


class DataError(ValueError):
    """A data set that cannot be used, with what was found and what is needed."""


def read_table(path: Path) -> Dataset:
    """The rows of a file whose name ends in one of `SUFFIXES`.

    A field that a row of JSON does not have is None. A column of CSV or TSV is of numbers where all of its cells are, written as
    JSON writes them, and it has not the name of a text; of strings otherwise.
    Raises DataError, which names the file and the line.
    """
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
    if suffix is None:
        raise DataError(f"cannot read {str(path)!r}: a data file must be one of {', '.join(SUFFIXES)}")
    try:
        columns = _json_columns(path) if suffix in JSON_SUFFIXES else _cell_columns(path, _SEPARATORS[suffix.removesuffix(".gz")])
    except CliError as error:
        raise DataError(str(error)) from error
    try:
        return Dataset.from_dict(columns)
    except Exception as error:  # values in lists and objects may be of any kind, which pyarrow says in its own ways
        raise DataError(f"cannot read {str(path)!r}: its lists or objects are not alike in every row ({' '.join(str(error).split())[:200]})") from error


def _json_columns(path: Path) -> dict[str, list]:
    rows, seen = [], {}
    for number, row in json_objects(path):
        for name, value in row.items():
            if value is None:
                seen.setdefault(name, None)
                continue
            kind = _KINDS[type(value)]
            before = seen[name] = seen.get(name) or (kind, number)
            if before[0] != kind:
                raise DataError(
                    f"cannot read {str(path)!r}, line {number}: {name!r} is {kind}, and {before[0]} in line {before[1]}: a column needs one kind"
                )
        rows.append(row)
    if not rows:
        raise DataError(f"cannot read {str(path)!r} as JSON lines: it holds no row, one object a line is expected")
    columns = {name: [row.get(name) for row in rows] for name in seen}
    return {name: _as_floats(values) if any(isinstance(value, float) for value in values) else values for name, values in columns.items()}


def _as_floats(values: list) -> list:
    return [value if value is None else float(value) for value in values]


def _cell_columns(path: Path, separator: str) -> dict[str, list]:
    lines = _cells(path, separator)
    _, names = next(lines, (1, []))
    if not all(names) or len(set(names)) < len(names) or not names:
        raise DataError(f"cannot read {str(path)!r}, line 1: it must name every column, each differently, got {', '.join(map(repr, names)) or 'nothing'}")
    rows = []
    for number, cells in lines:
        if len(cells) != len(names):
            raise DataError(f"cannot read {str(path)!r}, line {number}: {len(cells)} cells, but line 1 names {len(names)} columns")
        rows.append(cells)
    if not rows:
        raise DataError(f"cannot read {str(path)!r}: it holds no row below the names of its columns")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return {name: cells if name in TEXT_NAMES + PAIR_NAMES else _numbers(cells) or cells for name, cells in columns.items()}


def _cells(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each row. Cells of CSV may stand in quotes, and then hold commas and newlines; quotes in a TSV are characters."""
    lines = text_lines(path)
    if separator == "\t":
        yield from ((number, line.split("\t")) for number, line in lines if line)
        return
    before = csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader((line + "\n" for _, line in lines), strict=True)
    try:
        number = 1
        for cells in reader:
            if cells:
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"cannot read {str(path)!r}, line {reader.line_num}: not CSV ({error})") from error
    finally:
        csv.field_size_limit(before)


def _numbers(cells: list[str]) -> list | None:
    """The cells as numbers, where that is what they are: 7 and -0.5, but not 007, which only looks like one, nor an id of 30 digits."""
    if not all(map(_NUMBER.fullmatch, cells)):
        return None
    values = [float(cell) if set(cell) & set(".eE") else int(cell) for cell in cells]
    return _as_floats(values) if any(isinstance(value, float) for value in values) else values
