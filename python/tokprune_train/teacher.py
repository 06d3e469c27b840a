"""What the dense teacher says about every row, computed once before the training instead of in every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

import tokprune_kernels as tk

from .data.encoding import Collator, by_length, model_inputs


def teach(teacher: nn.Module, rows: Sequence[dict], collator: Collator, importance: bool, batch_size: int = 64, progress=None) -> None:
    """Add to each row "teacher_logits" (C,) and, if `importance`, "teacher_importance" (n,): that of the last layer, both float32.

    teacher: a model that `tokprune_kernels.prune_model` made run packed; it is run without pruning, in eval mode.
    progress: called with (rows done, rows).
    """
    pruning = tk.PruningConfig.from_dict(teacher.config.pruning)
    teacher.eval()
    teacher.set_pruning(tk.PruningConfig.dense())
    done = 0
    for chosen in by_length(rows, batch_size):
        with torch.no_grad():
            output = teacher(**model_inputs(collator([rows[row] for row in chosen])), output_pruning=importance)
        for place, row in enumerate(chosen):  # clones: views would keep every batch in memory as a whole
            rows[row]["teacher_logits"] = output["logits"][place].float().clone()
            if importance:
                rows[row]["teacher_importance"] = output["pruning"].importance[-1, place, : len(rows[row]["input_ids"])].clone()
        if progress is not None:
            done += len(chosen)
            progress(done, len(rows))
    teacher.set_pruning(pruning)
