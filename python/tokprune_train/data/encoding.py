"""Tokenised rows and the padded batches that models take; the models pack them again, so padding costs no arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from datasets import Dataset
from torch import Tensor

from .joining import UNLABELLED
from .task import Task, read_labels

# What teachers say of a row (see teacher.teach): of one size in every row, or a value for each token.
PER_TEXT = ("teacher_logits", "teacher_state", "teacher_layers")
PER_TOKEN = ("teacher_importance", "teacher_mean_importance", "teacher_saliency")


def encode(rows: Dataset, task: Task, tokenizer, max_length: int) -> list[dict]:
    """One dict per row: the tokenizer's lists (input_ids, token_type_ids, attention_mask) and "labels".

    Texts, or pairs, are cut at `max_length` tokens. Raises DataError for a label that the task does not have.
    """
    encoded = encode_texts(rows, task.columns.text, task.columns.pair, tokenizer, max_length)
    labels = read_labels(rows, task.columns.label)
    return [row | {"labels": task.target(value)} for row, value in zip(encoded, labels, strict=True)]


def encode_texts(rows: Dataset, text: str, pair: str | None, tokenizer, max_length: int) -> list[dict]:
    """As `encode`, without labels, of the columns `text` and, for pairs, `pair`."""
    encoded = tokenizer(list(rows[text]), pair and list(rows[pair]), truncation=True, max_length=max_length)
    return [{name: encoded[name][row] for name in encoded} for row in range(len(rows))]


@dataclass(frozen=True)
class Collator:
    """Rows -> one batch, right-padded to its longest text. What the teacher said rides along.

    pad_token_id: of the tokenizer.   Keys of the batch: input_ids, attention_mask and token_type_ids (B, L) int64; labels (B,)
    int64, float32 for regression, where the rows have them; unlabelled (B,) bool, where only the teacher knows some of them; float32
    where the rows have them: teacher_logits (B, C), teacher_state (B, H), teacher_importance, teacher_mean_importance and
    teacher_saliency (B, L); float16: teacher_layers (B, num_layers, H).
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[dict]) -> dict[str, Tensor]:
        padding = {"input_ids": self.pad_token_id, "attention_mask": 0, "token_type_ids": 0, **dict.fromkeys(PER_TOKEN, 0.0)}
        batch = {name: _padded([row[name] for row in rows], fill) for name, fill in padding.items() if name in rows[0]}
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        if any(UNLABELLED in row for row in rows):
            batch["unlabelled"] = torch.tensor([UNLABELLED in row for row in rows])
        for name in PER_TEXT:
            if name in rows[0]:
                batch[name] = torch.stack([row[name] for row in rows])
        return batch


def model_inputs(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a model takes of a batch when it is run without labels."""
    return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}


def on_device(inputs: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The same where a model is; nothing is copied where they are there."""
    return {name: values.to(device) for name, values in inputs.items()}


def by_length(rows: Sequence[dict], batch_size: int) -> Iterator[list[int]]:
    """Indices of rows in batches of texts of a length together: less padding to build. Longest first."""
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]["input_ids"]))
    for start in range(0, len(rows), batch_size):
        yield order[start : start + batch_size]


def _padded(lists: Sequence, fill: int | float) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.as_tensor(values) for values in lists], batch_first=True, padding_value=fill)
