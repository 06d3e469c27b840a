"""Rows of a data set, wherever it is: JSON lines, a folder of them, a folder saved by `datasets`, or a name on the hub."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from tokprune_kernels.cli.texts import JSON_SUFFIXES

# What a split is called, with the names that files and hub data sets use for it.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "validation_matched"),
    "test": ("test",),
}
# What `datasets` puts beside the rows that it saves: of several splits, of a single one.
_SAVED = ("dataset_dict.json", "state.json")


class DataError(ValueError):
    """A data set that cannot be used, with what was found and what is needed."""


def read_dataset(source: str, local_only: bool = False) -> DatasetDict:
    """The splits of a data set.

    Args:
        source: a JSON lines file (.jsonl, .json, either with .gz), which becomes the split "train"; a folder with one such
            file per split (train, validation, test and their usual variants); a folder that `datasets` saved (a single split
            becomes "train"); or a name on the hub, with its configuration after a colon where it has several
            ("nyu-mll/glue:sst2").
        local_only: ask the local cache only, not the hub.

    Raises:
        DataError: nothing there, or not readable.
    """
    path = Path(source)
    if path.is_file():
        return DatasetDict(train=_read_lines(path))
    if path.is_dir():
        return _read_folder(path)
    return _read_hub(source, local_only)


def pick_split(data: DatasetDict, name: str | None, otherwise: tuple[str, ...]) -> tuple[str, Dataset]:
    """(name, rows) of the split asked for, or of the first of `otherwise` that exists under one of its usual names.

    Raises DataError naming the splits that exist.
    """
    candidates = (name,) if name is not None else tuple(known for wanted in otherwise for known in SPLIT_NAMES[wanted])
    for candidate in candidates:
        if candidate in data:
            return candidate, data[candidate]
    raise DataError(
        f"no split {' or '.join(map(repr, candidates))} in the data set; it has {', '.join(map(repr, data))}: name the one to use"
    )


def _read_lines(path: Path) -> Dataset:
    if not path.name.endswith(JSON_SUFFIXES):
        raise DataError(f"cannot read {str(path)!r}: a data file must be JSON lines, one of {', '.join(JSON_SUFFIXES)}")
    try:
        with _no_bars():
            return load_dataset("json", data_files=str(path), split="train")
    except Exception as error:  # the reader raises whatever pyarrow and pandas raise; all of it means the same to the user
        raise DataError(f"cannot read {str(path)!r} as JSON lines, one object a row: {_reason(error)}") from error


def _read_folder(path: Path) -> DatasetDict:
    if any((path / name).is_file() for name in _SAVED):
        saved = load_from_disk(str(path))
        return saved if isinstance(saved, DatasetDict) else DatasetDict(train=saved)
    files = {
        split: file
        for split, names in SPLIT_NAMES.items()
        for name in names
        for suffix in JSON_SUFFIXES
        if (file := path / f"{name}{suffix}").is_file()
    }
    if not files:
        raise DataError(
            f"no data in {str(path)!r}: expected train.jsonl, validation.jsonl or test.jsonl (.gz allowed), or a folder "
            "that `save_to_disk` of datasets wrote"
        )
    return DatasetDict({split: _read_lines(file) for split, file in files.items()})


def _read_hub(source: str, local_only: bool) -> DatasetDict:
    name, _, configuration = source.partition(":")
    if local_only:
        raise DataError(f"{source!r} is no file and no folder here, and the hub cannot be reached")
    try:
        return load_dataset(name, configuration or None)
    except Exception as error:
        raise DataError(f"cannot load the data set {source!r} from the hub: {_reason(error)}") from error


@contextmanager
def _no_bars():
    """Reading a file is quick, and the bars of `datasets` would stand between the lines of the program."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    text = str(cause).strip() or str(error).strip()
    return f"{type(cause).__name__}: {text.splitlines()[0]}" if text else type(cause).__name__
