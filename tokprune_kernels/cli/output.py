"""Where results go: JSON files, and folders of models."""

import argparse
import json
from pathlib import Path

from .errors import CliError
from .storing import write_text


def add_json_argument(parser) -> None:
    """Add --json FILE."""
    parser.add_argument("--json", type=_writable, metavar="FILE", help="also write everything as JSON to FILE")


def _writable(path: str) -> str:
    """Say that a file cannot be written there before the work that would be lost (argparse type)."""
    if not Path(path).parent.is_dir() or Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"cannot write {path!r}: no such folder, or a folder itself")
    return path


def folder_to_write(path: str) -> str:
    """Say that there can be no such folder before the work that would be lost (argparse type)."""
    there = next(part for part in (Path(path), *Path(path).parents) if part.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"cannot write a folder {path!r}: {str(there)!r} is a file")
    return path


def write_json(path: str | None, content: dict) -> None:
    """Write `content` to `path`, whole or not at all; nothing where `path` is None. Raises CliError for a file that cannot be written."""
    if path is None:
        return
    try:
        write_text(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise CliError(str(error)) from error
