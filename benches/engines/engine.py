"""What an engine says about itself."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import BertModel

Batch = dict[str, torch.Tensor]  # input_ids, attention_mask: (B, L) int64
Run = Callable[[Batch], torch.Tensor]  # -> last hidden states (B, L, H); what it holds at padding is its own affair

PEER = "peer"  # someone else's, dense, at the precision it is listed under: what "best peer" is chosen from
LOW_PRECISION = "low precision"  # someone else's, dense, below that precision: for information
OURS = "ours"


@dataclass(frozen=True)
class Engine:
    """One way to run a BertModel.

    name: as in the results. kind: PEER, LOW_PRECISION or OURS. dtypes: of "fp32" and "bf16", what it can run.
    load: (fp32 model in eval mode, dtype, threads, cache folder) -> Run. The model stays as it is.
    packages: what `load` imports besides torch and transformers, as `pip install` names them.
    absent: says what else is missing on this machine, None if nothing.
    pooled_only: its Run gives the pooled output (B, H) instead, and its last layer computes nothing else.
    at_padded_task: whether it runs on the workloads padded to a task's maximum, on the others, or (None) on both.
    """

    name: str
    kind: str
    dtypes: tuple[str, ...]
    load: Callable[[BertModel, str, int, Path], Run]
    packages: tuple[str, ...] = ()
    absent: Callable[[], str | None] = lambda: None
    at_padded_task: bool | None = None
    pooled_only: bool = False

    def missing(self) -> str | None:
        """Why this engine cannot run here, with what to install; None if it can."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        return f"needs {' '.join(missing)} (pip install {' '.join(missing)})" if missing else self.absent()

    def runs(self, padded_to: int | None) -> bool:
        """Whether it takes part in a workload that is padded to a task's maximum (an int), or not (None)."""
        return self.at_padded_task is None or self.at_padded_task == (padded_to is not None)
