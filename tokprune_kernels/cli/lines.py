"""Files of lines, read strictly: UTF-8, a newline and nothing else ends a line, and every complaint names the file and the line."""

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain

from .errors import CliError

_MOST = 2**63 - 1  # what a column of whole numbers holds


def text_lines(path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of a file, unpacked where its name ends in .gz, without a byte order mark and without line ends.

    U+2028, NEL, form feeds and the like belong to the text that they stand in. Raises CliError.
    """
    number = 0
    try:
        with (gzip.open if str(path).endswith(".gz") else open)(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, text.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise CliError(
            f"cannot read {str(path)!r}, line {number}: not UTF-8 (byte 0x{error.object[error.start]:02x} at place {error.start}): "
            "save the file as UTF-8"
        ) from error
    except (OSError, EOFError, zlib.error, ValueError) as error:  # ValueError: a path that no file can have
        where = f"cannot read {str(path)!r}" + (f", after line {number}" if number else "")
        raise CliError(f"{where}: {getattr(error, 'strerror', None) or error}") from error


def json_objects(path) -> Iterator[tuple[int, dict]]:
    """(line, object) of each line of JSON that is not empty, or of each item where the file is one list. Raises CliError."""
    lines = ((number, line) for number, line in text_lines(path) if line.strip())
    said = f"cannot read {str(path)!r} as JSON lines, line"
    for first in lines:
        is_list = first[1].lstrip().startswith("[")
        for number, row in _items(first, lines, said) if is_list else _each(chain([first], lines), said):
            if not isinstance(row, dict):
                raise CliError(f"{said} {number}: not a JSON object, but {json.dumps(row)[:40]}")
            yield number, row


def _each(lines: Iterable[tuple[int, str]], said: str) -> Iterator[tuple[int, object]]:
    for number, line in lines:
        try:
            yield number, parse_json(line)
        except ValueError as error:
            raise CliError(f"{said} {number}: not JSON, one object a line ({error})") from error


def _items(first: tuple[int, str], lines: Iterable[tuple[int, str]], said: str) -> Iterator[tuple[int, object]]:
    """(line, item) of a list that may go over many lines, from the line where it begins."""
    numbers, texts = zip(first, *lines, strict=True)
    text = "\n".join(texts)
    at, line, counted = text.index("[") + 1, 0, 0
    items = 0
    while True:
        start = _NO_SPACE.search(text, at)
        if start is not None and start[0] == "]" and not text[start.end() :].strip():
            return
        if start is not None and items:
            start = _NO_SPACE.search(text, start.end()) if start[0] == "," else None
        if start is None:
            raise CliError(f"{said} {numbers[line]}: not a JSON list, which is items between commas and a ] at its end")
        line, counted = line + text.count("\n", counted, start.start()), start.start()
        try:
            value, at = _decoded(text, start.start())
        except ValueError as error:
            raise CliError(f"{said} {numbers[line]}: not JSON ({error})") from error
        items += 1
        yield numbers[line], value


def parse_json(text: str):
    """The value of a JSON text. Raises ValueError, a sentence, also for what Python's own reader lets through or gives up on.

    That is: NaN and infinities, numbers that 64 bits do not hold, a name twice in one object, half of a surrogate pair, and values
    nested deeper than Python's stack.
    """
    start = _NO_SPACE.search(text)
    value, end = _decoded(text, start.start() if start else 0)
    if text[end:].strip():
        raise ValueError(f"something stands behind its end: {text[end:].strip()[:20]!r}")
    return value


def _decoded(text: str, start: int):
    """(value, where it ends)."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text.find("\\u", start, end) >= 0:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(r"half of a surrogate pair (\ud800 to \udfff), which is no character") from None
    return value, end


def _whole(digits: str) -> int:
    if len(digits) > 20 or not -_MOST - 1 <= int(digits) <= _MOST:
        raise ValueError(f"{_shortened(digits)} is past what 64 bits hold: write it in quotes, as a string")
    return int(digits)


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{_shortened(digits)} is past what 64 bits hold")
    return value


def _no_number(name: str):
    raise ValueError(f"{name} is no JSON number")


def _named_once(pairs: list) -> dict:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return row


def _shortened(digits: str) -> str:
    return digits if len(digits) <= 24 else f"{digits[:12]}... ({len(digits)} characters)"


_DECODER = json.JSONDecoder(parse_int=_whole, parse_float=_finite, parse_constant=_no_number, object_pairs_hook=_named_once)
_NO_SPACE = re.compile(r"[^ \t\n\r]")
