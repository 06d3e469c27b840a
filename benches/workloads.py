"""What the model benchmark runs: fixed shapes, and batches with the lengths of real texts (tokens are random).

A batch is {"input_ids", "attention_mask"}, both (B, L) int64, padded on the right to L, with 1 for live in the mask.
"""

from dataclasses import dataclass

import torch
from harness import lengths_of

SHAPES = ((1, 16), (1, 128), (1, 512), (8, 128), (32, 128), (8, 384))
TASKS = {"sst2": (32, 4), "mrpc": (32, 2), "20news": (8, 1)}  # task: (texts in a batch, batches)
SORTED = {"sst2": 32 * 32, "mrpc": 32 * 16, "20news": 8 * 32}  # task: texts that similar lengths are cut from
TASK_MAXIMA = {"sst2": 64, "mrpc": 128}  # what ToP pads these tasks to


@dataclass(frozen=True)
class Workload:
    """A named list of batches; padded_to: the length that all are padded to, None: each to its own longest."""

    name: str
    batches: list[dict[str, torch.Tensor]]
    padded_to: int | None = None

    @property
    def lengths(self) -> torch.Tensor:
        """(texts,) int64 live tokens of every text, batch after batch."""
        return torch.cat([batch["attention_mask"].sum(1) for batch in self.batches])

    @property
    def padded_tokens(self) -> int:
        """Tokens with padding, of all batches."""
        return sum(batch["input_ids"].numel() for batch in self.batches)


def batch_of(lengths: list[int], generator: torch.Generator, padded_to: int | None = None) -> dict[str, torch.Tensor]:
    """One batch of random tokens with these lengths, padded to `padded_to` or to the longest."""
    live = torch.arange(padded_to or max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(1000, 30000, live.shape, generator=generator) * live
    return {"input_ids": ids, "attention_mask": live.long()}


def all_workloads() -> list[Workload]:
    """Every workload, in the order of the results."""
    workloads = [_workload(f"{texts}x{length}", [[length] * texts]) for texts, length in SHAPES]
    for task, (size, count) in TASKS.items():
        workloads.append(_workload(f"{task} batches of {size}", as_they_come(task)))
        workloads.append(_workload(f"{task} batches of {size}, similar lengths", similar_lengths(task)))
    workloads += [
        _workload(f"{task} padded to {length}", as_they_come(task), length) for task, length in TASK_MAXIMA.items()
    ]
    return workloads


def as_they_come(task: str) -> list[list[int]]:
    """Lengths of the task's first batches, in the order of the data."""
    size, count = TASKS[task]
    return _cut(lengths_of(task)[: size * count], size)


def similar_lengths(task: str) -> list[list[int]]:
    """As many batches, cut out of many texts sorted by length: the best case for whoever pads.

    They are taken in the middle of equal stretches of the sorted batches, so that their tokens are about as many as in
    batches that come in the order of the data.
    """
    size, count = TASKS[task]
    batches = [batch for batch in _cut(sorted(lengths_of(task)[: SORTED[task]]), size) if len(batch) == size]
    return [batches[(2 * index + 1) * len(batches) // (2 * count)] for index in range(count)]


def _cut(lengths: list[int], size: int) -> list[list[int]]:
    return [lengths[start : start + size] for start in range(0, len(lengths), size)]


def _workload(name: str, batches: list[list[int]], padded_to: int | None = None) -> Workload:
    generator = torch.Generator().manual_seed(0)
    return Workload(name, [batch_of(lengths, generator, padded_to) for lengths in batches], padded_to)
