"""What the dense teacher says about a batch, and about every row once before the training instead of in every step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

import tokprune_kernels as tk

from .data.encoding import PER_TOKEN, Collator, by_length
from .finite import check_answers
from .running import inputs_of
from .saliency import saliency
from .states import layer_states, pooled_states

_SALIENCY_BATCH = 16


def say(teacher: nn.Module, inputs: dict[str, Tensor], wanted: Collection[str], *, states: bool = False) -> dict[str, Tensor]:
    """What a dense model says about a padded batch, of those that are wanted; all but saliency, which takes gradients:

    "teacher_logits" (B, C), always; "teacher_state" (B, H), the pooled one; "teacher_layers" (B, num_layers, H), its first
    token after every layer; "teacher_importance" (B, L), that of the last layer; "teacher_mean_importance" (B, L), the mean over the
    layers. With states also "hidden_states", num_layers + 1 of (B, L, H).

    teacher: a model that `tokprune_kernels.prune_model` made run packed, which prunes nothing, in eval mode.

    Raises ValueError where the pooled state of a model without a pooler is asked for.
    """
    pooled_wanted, layers = "teacher_state" in wanted, "teacher_layers" in wanted
    scores = "teacher_importance" in wanted or "teacher_mean_importance" in wanted
    options = {"output_pruning": scores, "output_hidden_states": layers or states}
    with torch.no_grad(), pooled_states(teacher) if pooled_wanted else nullcontext() as pooled:
        output = teacher(**inputs, **options)
    said = {"teacher_logits": output["logits"].float()}
    if pooled_wanted:
        said["teacher_state"] = pooled[-1].float()
    if layers:
        said["teacher_layers"] = layer_states(output)
    if "teacher_importance" in wanted:
        said["teacher_importance"] = output["pruning"].importance[-1]
    if "teacher_mean_importance" in wanted:
        said["teacher_mean_importance"] = output["pruning"].importance.mean(dim=0)
    return said | ({"hidden_states": output["hidden_states"]} if states else {})


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
    """Add to each row what `say` says of those that are wanted, float32, and "teacher_saliency" (n,), see saliency.saliency;
    "teacher_layers" as float16, since they are many. What is of tokens is (n,), of the row's own.

    teacher: as for `say`; it is run without pruning, in eval mode.
    bf16: saliency in mixed precision.   progress: called with (rows done, rows).   Raises NotFiniteError for answers that are not finite.
    """
    pruning = tk.PruningConfig.from_dict(teacher.config.pruning)
    teacher.set_pruning(tk.PruningConfig.dense())
    teacher.eval()
    done = 0
    for chosen in by_length(rows, batch_size):
        some = [rows[row] for row in chosen]
        said = {name: values.cpu() for name, values in say(teacher, inputs_of(teacher, some, collator), wanted).items()}
        check_answers(said["teacher_logits"])
        if "teacher_layers" in said:
            said["teacher_layers"] = said["teacher_layers"].half()
        for place, row in enumerate(some):
            length = len(row["input_ids"])
            for name, values in said.items():  # clones: views would keep every batch in memory as a whole
                row[name] = (values[place, :length] if name in PER_TOKEN else values[place]).clone()
        if "teacher_saliency" in wanted:
            _add_saliency(teacher, some, collator, bf16)
        if progress is not None:
            done += len(chosen)
            progress(done, len(rows))
    teacher.set_pruning(pruning)


def _add_saliency(teacher: nn.Module, rows: Sequence[dict], collator: Collator, bf16: bool) -> None:
    # In smaller batches than the rest: a backward pass holds every layer's activations.
    for start in range(0, len(rows), _SALIENCY_BATCH):
        some = rows[start : start + _SALIENCY_BATCH]
        values = saliency(teacher, inputs_of(teacher, some, collator), bf16).cpu()
        for row, own in zip(some, values.split([len(row["input_ids"]) for row in some]), strict=True):
            row["teacher_saliency"] = own.clone()
