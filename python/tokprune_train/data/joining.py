"""More texts than the data set has: two of its texts joined make one that nobody has labelled, and that the teacher can."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .reading import DataError

# Marks a row whose label is still to come from the teacher.
UNLABELLED = "unlabelled"


def joined_texts(rows: Sequence[dict], count: int, max_length: int, seed: int) -> list[dict]:
    """`count` rows, each of two random ones: [CLS] first text, second text [SEP], no longer than `max_length` tokens.

    rows: of single texts, see data.encoding.encode, each with the tokenizer's first and last token around it.
    Their label is a placeholder until `label_by_teacher`. The same seed gives the same rows.
    Raises DataError for pairs of texts: what of two pairs belongs together, no join can say.
    """
    if any(any(row.get("token_type_ids", ())) for row in rows):
        raise DataError("only single texts can be joined, and these rows are pairs")
    generator = torch.Generator().manual_seed(seed)
    made = []
    while len(made) < count:
        first, second = (rows[index] for index in torch.randint(len(rows), (2,), generator=generator).tolist())
        ids = first["input_ids"][:-1] + second["input_ids"][1:]
        if len(ids) > max_length:
            ids = ids[: max_length - 1] + second["input_ids"][-1:]
        row = {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": first["labels"], UNLABELLED: True}
        if "token_type_ids" in first:
            row["token_type_ids"] = [0] * len(ids)
        made.append(row)
    return made


def label_by_teacher(rows: Sequence[dict], regression: bool) -> None:
    """Give the rows without a label the teacher's: its likeliest class, or its number; they need "teacher_logits"."""
    for row in rows:
        if row.get(UNLABELLED):
            logits = row["teacher_logits"]
            row["labels"] = float(logits[0]) if regression else int(logits.argmax())
