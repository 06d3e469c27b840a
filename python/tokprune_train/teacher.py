"""What the dense teacher says about every row, computed once before the training instead of in every step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext

from torch import nn

import tokprune_kernels as tk

from .data.encoding import PER_TOKEN, Collator
from .running import outputs
from .states import layer_states, pooled_states


def teach(
    teacher: nn.Module,
    rows: Sequence[dict],
    collator: Collator,
    wanted: Collection[str] = ("teacher_logits",),
    *,
    batch_size: int = 64,
    progress=None,
) -> None:
    """Add to each row those that are wanted of, float32: "teacher_logits" (C,), always; "teacher_state" (H,), the pooled one;
    "teacher_importance" (n,), that of the last layer; "teacher_mean_importance" (n,), the mean over the layers; and float16,
    since they are many: "teacher_layers" (num_layers, H), its first token after every layer.

    teacher: a model that `tokprune_kernels.prune_model` made run packed; it is run without pruning, in eval mode.
    progress: called with (rows done, rows).

    Raises ValueError where the pooled state of a model without a pooler is asked for.
    """
    states, layers = "teacher_state" in wanted, "teacher_layers" in wanted
    last, mean = (name in wanted for name in PER_TOKEN)
    pruning = tk.PruningConfig.from_dict(teacher.config.pruning)
    teacher.set_pruning(tk.PruningConfig.dense())
    done = 0
    options = {"output_pruning": last or mean, "output_hidden_states": layers}
    with pooled_states(teacher) if states else nullcontext() as pooled:
        for chosen, output in outputs(teacher, rows, collator, batch_size, **options):
            after_layers = layer_states(output).half() if layers else None
            importance = output["pruning"].importance if last or mean else None
            over_layers = importance.mean(dim=0) if mean else None
            for place, row in enumerate(chosen):  # clones: views would keep every batch in memory as a whole
                rows[row]["teacher_logits"] = output["logits"][place].float().clone()
                if states:
                    rows[row]["teacher_state"] = pooled[-1][place].float().clone()
                if layers:
                    rows[row]["teacher_layers"] = after_layers[place].clone()
                length = len(rows[row]["input_ids"])
                if last:
                    rows[row]["teacher_importance"] = importance[-1, place, :length].clone()
                if mean:
                    rows[row]["teacher_mean_importance"] = over_layers[place, :length].clone()
            if progress is not None:
                done += len(chosen)
                progress(done, len(rows))
    teacher.set_pruning(pruning)
