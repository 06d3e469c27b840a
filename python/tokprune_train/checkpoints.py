"""Checkpoints of a stage, and its end: in their folder whole or not at all, and found again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tokprune_kernels as tk
from safetensors.torch import load_file, save_file
from tokprune_kernels.cli.storing import cannot_write, flush, flush_all, whole_folder
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from . import processes
from .student import Student

# Names the files of a folder with their sizes; written last.
_MANIFEST = "complete.json"
_PRUNING, _WEIGHTS, _END = "pruning.json", "model.safetensors", "end"
_BESIDE = ".checkpoint.unfinished"  # one name for all processes, which write into it together


def newest(folder: Path) -> Path | None:
    """The checkpoint of the most steps that is complete, if there is one."""
    whole = [path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _step(path) is not None and _is_complete(path)]
    return max(whole, key=_step, default=None)


def said_of_newest(folder: Path) -> str:
    """What is there to go on from, as a sentence."""
    found = newest(folder)
    return "there is no checkpoint" if found is None else f"the checkpoint of step {_step(found)} stays in {str(folder)!r}"


@contextmanager
def written(folder: Path, step: int, student: Student) -> Iterator[Path]:
    """Where transformers' Trainer, in every process, is to write its checkpoint of a step; once it is whole, it is the only one.

    Beside it stands the pruning that the model had. Raises OSError where it cannot be written; those that were there stay.
    """
    beside = folder / _BESIDE
    if processes.is_first():
        shutil.rmtree(beside, ignore_errors=True)
    processes.wait()
    try:
        yield beside
        processes.wait()
        if processes.is_first():
            made = beside / f"{PREFIX_CHECKPOINT_DIR}-{step}"
            _seal(made, student)
            place = folder / made.name
            shutil.rmtree(place, ignore_errors=True)  # of the same step, which is not complete, or not what is trained now
            made.rename(place)
            flush(folder)
            for other in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
                if other != place:
                    shutil.rmtree(other, ignore_errors=True)
    except Exception as error:
        failed = cannot_write(folder / f"{PREFIX_CHECKPOINT_DIR}-{step}", error)
        shutil.rmtree(beside, ignore_errors=True)
        raise OSError(f"{failed}; {said_of_newest(folder)}: make room, and go on with --resume") from error
    finally:
        if processes.is_first():
            shutil.rmtree(beside, ignore_errors=True)
    processes.wait()


def restore_pruning(checkpoint: Path, student: Student) -> None:
    """Prune as when the checkpoint was written: its weights were made under that."""
    student.model.set_pruning(tk.PruningConfig.from_dict(json.loads((checkpoint / _PRUNING).read_text(encoding="utf-8"))))


def keep_end(folder: Path, student: Student) -> None:
    """What a stage has come to, pruner included, so that it need not be trained again."""
    with whole_folder(folder / _END) as beside:
        save_file(student.state_dict(), beside / _WEIGHTS)
        _seal(beside, student)


def restore_end(folder: Path, student: Student) -> bool:
    """Give the student what the stage came to; False where it has not come to its end."""
    end = folder / _END
    if not _is_complete(end):
        return False
    student.load_state_dict(load_file(end / _WEIGHTS))
    restore_pruning(end, student)
    return True


def forget_end(folder: Path) -> None:
    """Once the result is there, its model is enough."""
    shutil.rmtree(folder / _END, ignore_errors=True)


def forget_all(folder: Path) -> None:
    """Remove what another training has left in the folder of a stage."""
    forget_end(folder)
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(checkpoint)


def _seal(folder: Path, student: Student) -> None:
    (folder / _PRUNING).write_text(json.dumps(student.model.config.pruning), encoding="utf-8")
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    (folder / _MANIFEST).write_text(json.dumps(sizes), encoding="utf-8")
    flush_all(folder)


def _is_complete(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return _PRUNING in sizes and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _step(path: Path) -> int | None:
    digits = path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
    return int(digits) if digits.isascii() and digits.isdigit() else None
