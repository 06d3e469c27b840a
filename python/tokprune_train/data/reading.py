"""Rows of a data set, wherever it is: a file, a folder of them, a folder saved by `datasets`, or a name on the hub."""

from __future__ import annotations

import json
from pathlib import Path

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

from .tables import SUFFIXES, DataError, read_table

# What a split is called, with the names that files and hub data sets use for it.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "validation_matched"),
    "test": ("test",),
}
# What `datasets` puts beside the rows that it saves: of several splits, of a single one.
_SAVED = ("dataset_dict.json", "state.json")


def read_dataset(source: str, local_only: bool = False) -> DatasetDict:
    """The splits of a data set.

    Args:
        source: a file (JSON lines, CSV or TSV, by its name: see `tables.read_table`), which becomes the split "train"; a folder with
            one such file per split (train, validation, test and their usual variants); a folder that `datasets` saved (a single
            split becomes "train"); or a name on the hub, with its configuration after a colon where it has several
            ("nyu-mll/glue:sst2").
        local_only: ask the local cache only, not the hub.

    Raises:
        DataError: nothing there, or not readable.
    """
    path = Path(source)
    if not source:
        raise DataError("no data set was named: give a file, a folder, or a name on the hub")
    if path.is_file():
        return DatasetDict(train=read_table(path))
    if path.is_dir():
        return _read_folder(path)
    if path.exists() or source.endswith(SUFFIXES):
        raise DataError(f"cannot read {source!r}: {'neither a file nor a folder' if path.exists() else 'no such file'}")
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


def _read_folder(path: Path) -> DatasetDict:
    if any((path / name).is_file() for name in _SAVED):
        return _read_saved(path)
    files: dict[str, Path] = {}
    for split, file in ((split, path / f"{name}{suffix}") for split, names in SPLIT_NAMES.items() for name in names for suffix in SUFFIXES):
        if not file.is_file():
            continue
        if split in files:
            raise DataError(f"two files for the split {split!r} in {str(path)!r}: {files[split].name!r} and {file.name!r}: leave one of them there")
        files[split] = file
    if not files:
        raise DataError(
            f"no data in {str(path)!r}: expected train.jsonl, validation.jsonl or test.jsonl (or .json, .csv, .tsv; .gz allowed), or a "
            "folder that `save_to_disk` of datasets wrote"
        )
    return DatasetDict({split: read_table(file) for split, file in files.items()})


def _read_saved(path: Path) -> DatasetDict:
    if "::" in str(path.resolve()):
        raise DataError(f"cannot read {str(path)!r}: `datasets` takes what follows :: in a path for another path: rename the folder")
    try:
        _stay_inside(path)
        saved = load_from_disk(str(path))
    except Exception as error:  # whatever json, pyarrow and `datasets` raise; all of it means the same to the user
        raise DataError(f"cannot read {str(path)!r}, which `datasets` seems to have saved: {_reason(error)}") from error
    return saved if isinstance(saved, DatasetDict) else DatasetDict(train=saved)


def _stay_inside(path: Path) -> None:
    """Raise ValueError where a saved folder names splits or files that are not plain names, and so might be outside of it."""
    splits = path / _SAVED[0]
    names = json.loads(splits.read_text("utf-8"))["splits"] if splits.is_file() else []
    folders = [path / name for name in names] or [path]
    names += [entry["filename"] for folder in folders for entry in json.loads((folder / _SAVED[1]).read_text("utf-8"))["_data_files"]]
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"it names {name!r}, which is not in it")


def _read_hub(source: str, local_only: bool) -> DatasetDict:
    name, _, configuration = source.partition(":")
    if local_only:
        raise DataError(f"{source!r} is no file and no folder here, and the hub cannot be reached")
    try:
        return load_dataset(name, configuration or None)
    except Exception as error:
        raise DataError(f"cannot load the data set {source!r} from the hub: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    text = str(cause).strip() or str(error).strip()
    return f"{type(cause).__name__}: {text.splitlines()[0]}" if text else type(cause).__name__
