"""What a pruned model is worth: its score by really removing tokens, and the FLOPs that this takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

import tokprune_kernels as tk

from .data.encoding import Collator
from .running import outputs


@dataclass(frozen=True)
class Evaluation:
    """Scores of a model on labelled rows.

    metrics: accuracy, and f1 of class 1 where there are two classes (GLUE); pearson and spearman for regression. In [0, 1].
    flops_reduction: dense FLOPs / pruned FLOPs over all rows, against three baselines: "packed" (no padding), "longest" (every
        batch padded to its longest text), and "maximum" (every text padded to `max_length`, as ToP counts).
    tokens_alive: mean over the rows of the share of a text's tokens in the attention of each layer; last: at the end.
    rows, max_length: how many rows, and the length that texts were cut at.
    """

    metrics: dict[str, float]
    flops_reduction: dict[str, float]
    tokens_alive: list[float]
    rows: int
    max_length: int

    def to_dict(self) -> dict:
        """As JSON types."""
        return asdict(self)


def evaluate(
    model: nn.Module, rows: Sequence[dict], collator: Collator, max_length: int, batch_size: int = 32, progress=None
) -> Evaluation:
    """Run a pruned model over rows, removing tokens for real, and score it.

    model: from `tokprune_kernels.prune_model`, with a sequence classification head; it is left in eval mode.
    rows: from data.encoding.encode.   progress: called with (rows done, rows).

    Raises ValueError for no rows.
    """
    if not rows:
        raise ValueError("there are no rows to evaluate on")
    logits, kept, longest, order = [], [], [], []
    for chosen, output in outputs(model, rows, collator, batch_size, output_pruning=True):
        order += chosen
        logits.append(output["logits"].float().cpu())
        kept.append(output["pruning"].kept_lengths.cpu())
        longest.append(tk.flops.dense_flops(kept[-1][0], model.config, padded_to="longest").sum())
        if progress is not None:
            progress(len(order), len(rows))
    lengths = torch.cat(kept, dim=1)
    initial = lengths[0]
    pruned = tk.flops.encoder_flops(lengths, model.config).sum()
    dense = {
        "packed": tk.flops.dense_flops(initial, model.config).sum(),
        "longest": torch.stack(longest).sum(),
        "maximum": tk.flops.dense_flops(initial, model.config, padded_to=max_length).sum(),
    }
    targets = torch.tensor([rows[row]["labels"] for row in order])
    return Evaluation(
        metrics=score(torch.cat(logits), targets),
        flops_reduction={name: float(flops / pruned) for name, flops in dense.items()},
        tokens_alive=shares_alive(lengths),
        rows=len(rows),
        max_length=max_length,
    )


def shares_alive(lengths: Tensor) -> list[float]:
    """For each row of lengths (num_layers + 1, N) the mean over the texts of the share of their tokens that are still there."""
    return (lengths / lengths[0].clamp(min=1)).mean(dim=1).tolist()


def score(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """The metrics of Evaluation from logits (N, C) and targets (N,); C = 1 is regression."""
    if logits.shape[1] == 1:
        return {"pearson": _pearson(logits[:, 0], targets), "spearman": _pearson(_ranks(logits[:, 0]), _ranks(targets))}
    predicted = logits.argmax(dim=1)
    metrics = {"accuracy": float((predicted == targets).double().mean())}
    if logits.shape[1] == 2:
        hits = float(((predicted == 1) & (targets == 1)).sum())
        metrics["f1"] = 2 * hits / max(1.0, float((predicted == 1).sum() + (targets == 1).sum()))
    return metrics


def _pearson(x: Tensor, y: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([x.double(), y.double()]))[0, 1].nan_to_num())


def _ranks(x: Tensor) -> Tensor:
    """Ranks from 0, the mean rank for equal values."""
    values, inverse, counts = x.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0)
    return ((last - counts + last - 1) / 2)[inverse]
