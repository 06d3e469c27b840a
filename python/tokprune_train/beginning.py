"""What a training was started with, kept in its folder: whatever goes on from there must have been asked for the same."""

from __future__ import annotations

import hashlib
import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tokprune_kernels.cli.storing import write_text
from transformers import AutoConfig

from . import processes

_FILE = "start.json"
# No part of what is trained: where things are kept, and how many checkpoints are.
_NOT_COMPARED = ("run", "command", "output", "resume", "answers", "checkpoints")
# What is in them counts, not how they are called.
_BY_CONTENT = ("model", "teacher", "data")
_READ_OF_A_MODEL = ("config.json", "*.safetensors", "*.bin")


def start_of(args: Namespace, model: str, teacher: str | None, rows: Sequence[dict]) -> dict:
    """All that the result hangs on, as JSON types.   model, teacher: folders or hub ids.   rows: encoded, those evaluated on among them."""
    given = {name: value for name, value in vars(args).items() if name not in (*_NOT_COMPARED, *_BY_CONTENT)}
    contents = {"model": _digest_of_model(model), "teacher": teacher and _digest_of_model(teacher), "data": _digest_of_rows(rows)}
    return json.loads(json.dumps({"arguments": given, "processes": processes.count(), "contents": contents}))


def keep_start(folder: Path, start: dict) -> None:
    """Write it down."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / _FILE, json.dumps(start, indent=2) + "\n")


def check_start(folder: Path, start: dict) -> bool:
    """Whether a training was started there. Raises ValueError where that was another one, with all that differs.

    Another number of threads is said only: sums are then made in another order, and may differ in their last bits.
    """
    try:
        first = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none was, or it was killed before it had begun
        return False
    differing = [_said(f"--{name.replace('_', '-')}", *values) for name, *values in _changed(first["arguments"], start["arguments"], "threads")]
    differing += [f"--{name} has another content" for name, *_ in _changed(first["contents"], start["contents"])]
    differing += [_said("the number of processes", *values) for _, *values in _changed(*({"": each["processes"]} for each in (first, start)))]
    if differing:
        raise ValueError(
            f"--resume goes on with what {str(folder)!r} was started with, and this differs: {'; '.join(differing)}. Give what was given first, "
            "or another folder"
        )
    threads = [each["arguments"].get("threads") for each in (first, start)]
    if threads[0] != threads[1] and processes.is_first():
        print(f"note: {_said('--threads', *threads)}; the last bits of the result may differ", file=sys.stderr)
    return True


def _changed(first: dict, now: dict, *ignored: str) -> list[tuple]:
    names = [*first, *(name for name in now if name not in first)]
    return [(name, first.get(name), now.get(name)) for name in names if name not in ignored and first.get(name) != now.get(name)]


def _said(what: str, first, now) -> str:
    return f"{what} was {'not given' if first is None else first} and is {'not given' if now is None else now}"


def _digest_of_model(name: str) -> str:
    if not Path(name).is_dir():
        return f"{name} {getattr(AutoConfig.from_pretrained(name), '_commit_hash', None)}"
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _READ_OF_A_MODEL for path in Path(name).glob(pattern)}):
        digest.update(path.name.encode())
        with path.open("rb") as stream:
            while part := stream.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()


def _digest_of_rows(rows: Sequence[dict]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(sorted(row.items())).encode())
    return digest.hexdigest()
