"""Where results go, JSON files and folders of models: refused before the work that would be lost."""

import argparse
import json
import os
import stat
import tempfile
from pathlib import Path

from .errors import CliError
from .storing import write_text


def add_json_argument(parser) -> None:
    """Add --json FILE."""
    parser.add_argument("--json", type=file_to_write, metavar="FILE", help="also write everything as JSON to FILE")


def file_to_write(path: str) -> str:
    """Say that there can be no such file before the work that would be lost (argparse type)."""
    return _possible(path, "file", _refuse_file)


def folder_to_write(path: str) -> str:
    """Say that there can be no such folder before the work that would be lost (argparse type)."""
    return _possible(path, "folder", _refuse_folder)


def _possible(path: str, what: str, refuse) -> str:
    try:
        if not path.strip():
            raise ValueError(f"it has no name, and a {what} needs one")
        refuse(Path(path))
    except (ValueError, OSError) as error:  # ValueError: of the system's, a character that no name can have
        raise argparse.ArgumentTypeError(f"cannot write a {what} {_quoted(path)}: {getattr(error, 'strerror', None) or error}") from None
    return path


def _refuse_file(path: Path) -> None:
    kind = _kind(path)
    if kind == stat.S_IFDIR:
        raise ValueError("it is a folder")
    if kind == stat.S_IFIFO and Path(os.path.realpath(path)).exists():  # not so the nameless ones that a shell makes of `| cat` and `>(cat)`
        raise ValueError("it is a fifo, which waits for somebody to read it")
    if kind not in (None, stat.S_IFREG):
        return  # /dev/null, /dev/stdout
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise ValueError(f"there is no folder {_quoted(folder)}")
    if kind is not None and not os.access(path, os.W_OK):
        raise ValueError("it is write-protected")
    _refuse_names(folder, [Path(path).name])


def _refuse_folder(path: Path) -> None:
    there = next(part for part in (path, *path.parents) if _kind(part) is not None or part.is_symlink() or part == part.parent)
    if _kind(there) != stat.S_IFDIR:
        raise ValueError(f"{_quoted(there)} is {_WORDS.get(_kind(there), 'no folder')}")
    _refuse_names(there, path.parts[len(there.parts) :] if there != Path() else path.parts)


_WORDS = {stat.S_IFREG: "a file", stat.S_IFIFO: "a fifo", None: "a link to what is not there"}


def _kind(path: Path) -> int | None:
    """What a path leads to, as in stat; None where that is nothing."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _refuse_names(folder: Path, names) -> None:
    """Raise OSError unless something can be written in a folder, and called this or, one in the other, these."""
    for name in names:
        _kind(folder / name)  # for "File name too long"
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(f"in {_quoted(folder)} nothing can be written ({error.strerror})") from error


def _quoted(path) -> str:
    text = str(path)
    return repr(text if len(text) <= 200 else f"{text[:80]}...{text[-80:]}")


def write_json(path: str | None, content: dict) -> None:
    """Write `content` to `path`, whole or not at all; nothing where `path` is None. Raises CliError for a file that cannot be written."""
    if path is None:
        return
    through = Path(path).is_symlink() and _kind(Path(path)) in (None, stat.S_IFREG)
    real = os.path.realpath(path) if through else path  # whole where a link leads, too
    try:
        write_text(real, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise CliError(str(error)) from error
