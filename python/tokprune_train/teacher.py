"""What the dense teacher says about every row, computed once before the training instead of in every step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext

from torch import nn

import tokprune_kernels as tk

from .data.encoding import PER_TOKEN, Collator, model_inputs, on_device
from .running import outputs
from .saliency import saliency
from .states import layer_states, pooled_states

_SALIENCY_BATCH = 16


def teach(
    teacher: nn.Module,
    rows: Sequence[dict],
    collator: Collator,
    wanted: Collection[str] = ("teacher_logits",),
    *,
    batch_size: int = 64,
    bf16: bool = False,
    progress=None,
) -> None:
    """Add to each row those that are wanted of, float32: "teacher_logits" (C,), always; "teacher_state" (H,), the pooled one;
    "teacher_importance" (n,), that of the last layer; "teacher_mean_importance" (n,), the mean over the layers; "teacher_saliency"
    (n,), see saliency.saliency; and float16, since they are many: "teacher_layers" (num_layers, H), its first token after
    every layer.

    teacher: a model that `tokprune_kernels.prune_model` made run packed; it is run without pruning, in eval mode.
    bf16: saliency in mixed precision.   progress: called with (rows done, rows).

    Raises ValueError where the pooled state of a model without a pooler is asked for.
    """
    states, layers = "teacher_state" in wanted, "teacher_layers" in wanted
    scores = "teacher_importance" in wanted or "teacher_mean_importance" in wanted
    pruning = tk.PruningConfig.from_dict(teacher.config.pruning)
    teacher.set_pruning(tk.PruningConfig.dense())
    done = 0
    options = {"output_pruning": scores, "output_hidden_states": layers}
    with pooled_states(teacher) if states else nullcontext() as pooled:
        for chosen, output in outputs(teacher, rows, collator, batch_size, **options):
            said = {"teacher_logits": output["logits"].float()}
            if states:
                said["teacher_state"] = pooled[-1].float()
            if layers:
                said["teacher_layers"] = layer_states(output).half()
            if "teacher_importance" in wanted:
                said["teacher_importance"] = output["pruning"].importance[-1]
            if "teacher_mean_importance" in wanted:
                said["teacher_mean_importance"] = output["pruning"].importance.mean(dim=0)
            said = {name: values.cpu() for name, values in said.items()}
            for place, row in enumerate(chosen):
                length = len(rows[row]["input_ids"])
                for name, values in said.items():  # clones: views would keep every batch in memory as a whole
                    rows[row][name] = (values[place, :length] if name in PER_TOKEN else values[place]).clone()
            if "teacher_saliency" in wanted:
                _add_saliency(teacher, [rows[row] for row in chosen], collator, bf16)
            if progress is not None:
                done += len(chosen)
                progress(done, len(rows))
    teacher.set_pruning(pruning)


def _add_saliency(teacher: nn.Module, rows: Sequence[dict], collator: Collator, bf16: bool) -> None:
    # In smaller batches than the rest: a backward pass holds every layer's activations.
    for start in range(0, len(rows), _SALIENCY_BATCH):
        some = rows[start : start + _SALIENCY_BATCH]
        values = saliency(teacher, on_device(model_inputs(collator(some)), teacher.device), bf16).cpu()
        for row, own in zip(some, values.split([len(row["input_ids"]) for row in some]), strict=True):
            row["teacher_saliency"] = own.clone()
