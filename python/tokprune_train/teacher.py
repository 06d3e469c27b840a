"""What the dense teacher says about every row, computed once before the training instead of in every step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from torch import nn

import tokprune_kernels as tk

from .data.encoding import Collator
from .running import outputs
from .states import layer_states, pooled_states


def teach(
    teacher: nn.Module,
    rows: Sequence[dict],
    collator: Collator,
    *,
    importance: bool = False,
    states: bool = False,
    layers: bool = False,
    batch_size: int = 64,
    progress=None,
) -> None:
    """Add to each row, float32: "teacher_logits" (C,), if `states` "teacher_state" (H,), the pooled one, and if `importance`
    "teacher_importance" (n,), that of the last layer; and if `layers`, float16 since they are many, "teacher_layers"
    (num_layers, H), its first token after every layer.

    teacher: a model that `tokprune_kernels.prune_model` made run packed; it is run without pruning, in eval mode.
    progress: called with (rows done, rows).

    Raises ValueError where `states` of a model without a pooler are asked for.
    """
    pruning = tk.PruningConfig.from_dict(teacher.config.pruning)
    teacher.set_pruning(tk.PruningConfig.dense())
    done = 0
    wanted = {"output_pruning": importance, "output_hidden_states": layers}
    with pooled_states(teacher) if states else nullcontext() as pooled:
        for chosen, output in outputs(teacher, rows, collator, batch_size, **wanted):
            after_layers = layer_states(output).half() if layers else None
            for place, row in enumerate(chosen):  # clones: views would keep every batch in memory as a whole
                rows[row]["teacher_logits"] = output["logits"][place].float().clone()
                if states:
                    rows[row]["teacher_state"] = pooled[-1][place].float().clone()
                if layers:
                    rows[row]["teacher_layers"] = after_layers[place].clone()
                if importance:
                    rows[row]["teacher_importance"] = output["pruning"].importance[-1, place, : len(rows[row]["input_ids"])].clone()
            if progress is not None:
                done += len(chosen)
                progress(done, len(rows))
    teacher.set_pruning(pruning)
