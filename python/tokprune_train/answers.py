"""What teachers said about their rows, kept in a folder: several trainings from one dense model ask it once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from tokprune_kernels.cli.storing import whole_file
from torch import nn

from .data.encoding import PER_TEXT, PER_TOKEN


def fingerprint(teacher: nn.Module, rows: Sequence[dict]) -> str:
    """Of the teacher's weights and the rows' tokens: equal where the answers are."""
    digest = hashlib.sha256()
    for name, tensor in sorted(teacher.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    for row in rows:
        for name in ("input_ids", "token_type_ids"):
            digest.update(torch.tensor(row.get(name, ()), dtype=torch.int32).numpy())
    return digest.hexdigest()


def keep(folder: Path, rows: Sequence[dict], of: str) -> None:
    """Write the answers that `teach` added to the rows to a file of their own; `of`: their fingerprint."""
    joined = dict.fromkeys(PER_TEXT, torch.stack) | dict.fromkeys(PER_TOKEN, torch.cat)
    answers = {name: join([row[name] for row in rows]) for name, join in joined.items() if name in rows[0]}
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(_file(folder, of)) as beside:
        torch.save(answers, beside)


def recall(folder: Path, rows: Sequence[dict], of: str, wanted: Collection[str]) -> bool:
    """Add the `wanted` answers with this fingerprint to the rows. False, with nothing added, where not all of them are there, or the file
    cannot be read: they are then asked for again."""
    try:
        kept = torch.load(_file(folder, of), weights_only=True)
    except Exception:  # none there, or whatever the loader raises for half a file
        return False
    if not isinstance(kept, dict) or not set(wanted) <= set(kept):
        return False
    for name in wanted:
        values = kept[name]
        parts = values.split([len(row["input_ids"]) for row in rows]) if name in PER_TOKEN else values
        for row, value in zip(rows, parts, strict=True):
            row[name] = value
    return True


def _file(folder: Path, of: str) -> Path:
    return folder / f"{of[:16]}.pt"
