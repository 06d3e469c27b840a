"""Texts, or pairs of texts, from a file: a text a line, or JSON lines as labelled data has them (docs/training.md)."""

import json
from dataclasses import dataclass
from itertools import islice

from .errors import CliError
from .lines import json_objects, text_lines

JSON_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
# What the common data sets call the text, and the other one of a pair; the first that exists counts.
TEXT_NAMES = ("text", "sentence", "sentence1", "question1", "premise", "question")
PAIR_NAMES = ("text_pair", "sentence2", "question2", "hypothesis")

TEXT_HELP = (
    "real text, UTF-8: one a line; or JSON lines (.jsonl, .jsonl.gz) with the fields text and, for pairs, text_pair, or what GLUE calls them"
)


@dataclass(frozen=True)
class Texts:
    """first: the texts. second: of pairs the other text of each, in the same order; None: these are no pairs."""

    first: list[str]
    second: list[str] | None = None

    def __len__(self):
        return len(self.first)

    def __getitem__(self, rows: slice) -> "Texts":
        return Texts(self.first[rows], None if self.second is None else self.second[rows])


def read_texts(path, limit: int | None = None) -> Texts:
    """Return the texts, or pairs, of a file, at most `limit`; empty lines are left out.

    A name that ends in one of `JSON_SUFFIXES` says JSON lines. Raises CliError where there are none to be read.
    """
    texts = (_json_rows if str(path).endswith(JSON_SUFFIXES) else _plain_rows)(path, limit)
    if not len(texts):
        raise CliError(f"{str(path)!r} holds no text (one a line is expected)")
    return texts


def _plain_rows(path, limit) -> Texts:
    stripped = (line.strip() for _, line in text_lines(path))
    return Texts(list(islice(filter(None, stripped), limit)))


def _json_rows(path, limit) -> Texts:
    rows = list(islice(json_objects(path), limit))
    names = dict.fromkeys(name for _, row in rows for name in row)
    first, second = (next((name for name in usual if name in names), None) for usual in (TEXT_NAMES, PAIR_NAMES))
    if rows and first is None:
        raise CliError(f"{str(path)!r} has no field with a text: looked for {', '.join(TEXT_NAMES)}, the first line has {', '.join(rows[0][1]) or 'nothing'}")
    for number, row in rows:
        for name in filter(None, (first, second)):
            if not isinstance(row.get(name), str):
                raise CliError(f"{str(path)!r}, line {number}: no text in the field {name!r}, but {json.dumps(row.get(name))}")
    return Texts([row[first] for _, row in rows], second and [row[second] for _, row in rows])
