"""Files and folders that appear whole or not at all: written beside their place, flushed to the disk, then renamed.

A kill or a full disk leaves at most something unfinished beside, under a name that nothing reads.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNFINISHED = ".unfinished"
# What is read of a model's folder first, and so is written last.
_LAST = "config.json"
_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Where to write a file that is to stand at `path`; it does once the block is left without an error. What was there stays until then.

    A device, a pipe or a link is written through. Raises OSError, one line, where it cannot be written, whatever the writer raised.
    """
    path = Path(path)
    through = path.is_symlink() or (path.exists() and not path.is_file())
    beside = path if through else _unfinished(path)
    try:
        yield beside
        if not through:
            flush(beside)
            os.replace(beside, path)
            flush(path.parent)
    except Exception as error:
        raise cannot_write(path, error) from error
    finally:
        if not through:
            beside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """`text` as a whole file, in UTF-8."""
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder to write in; `path` is that folder once the block is left without an error. Parents are made.

    Where there is a folder already, its other files stay: each new file takes its place whole, and config.json, without which nothing
    loads a model, is missing from the first to the last of them. Raises OSError as `whole_file`.
    """
    path = Path(path)
    there = path.is_dir()
    beside = _unfinished(path / path.resolve().name if there else path)
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
        yield beside
        flush_all(beside)
        if there:
            _move_in(beside, path)
        else:
            os.rename(beside, path)
        flush(path if there else path.parent)
    except Exception as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _unfinished(path: Path) -> Path:
    """The name beside `path` under which this process writes it; what processes of this machine that are no more left so is removed."""
    mine = f".{path.name}.{os.uname().nodename}-"
    for left in path.parent.glob(f"{glob.escape(mine)}*{_UNFINISHED}"):
        pid = left.name.removeprefix(mine).removesuffix(_UNFINISHED)
        if pid.isdigit() and not _is_alive(int(pid)):
            _remove(left)
    return path.with_name(f"{mine}{os.getpid()}{_UNFINISHED}")


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder and those in it; only for who alone writes there."""
    for left in [*folder.glob(f".*{_UNFINISHED}"), *folder.glob(f"*/.*{_UNFINISHED}")]:
        _remove(left)


def flush_all(folder: Path) -> None:
    """`flush` of a folder and all that is in it."""
    for path in sorted(folder.rglob("*"), reverse=True):
        flush(path)
    flush(folder)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk: a rename may get there before what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_write(path: Path, error: Exception) -> OSError:
    """What a writer raised, as an OSError of one line that names the place."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    if reason.startswith("[enforce fail"):  # torch's writer, which does not ask what failed
        reason = "not all of it could be written, as where there is no space left on the device"
    return OSError(f"cannot write {str(path)!r}: {reason}")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _move_in(beside: Path, path: Path) -> None:
    new = [file.relative_to(beside) for file in beside.rglob("*") if file.is_file()]
    if Path(_LAST) in new:
        (path / _LAST).unlink(missing_ok=True)
        # In other pieces than the new ones they would be read in their place.
        for old in {old for pattern in _WEIGHTS for old in path.glob(pattern)}:
            if old.relative_to(path) not in new:
                old.unlink()
    for file in sorted(new, key=lambda file: (file == Path(_LAST), file)):
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(beside / file, path / file)
