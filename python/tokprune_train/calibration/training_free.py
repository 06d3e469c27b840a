"""Pruning without training: what meets a constraint and leaves the answers of a classifier, as it is, nearest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import tokprune_kernels as tk
from torch import Tensor, nn
from tokprune_kernels.flops import dense_flops, encoder_flops

from ..data.encoding import Collator
from ..evaluation import shares_alive
from ..objectives.distillation import prediction_distillation
from .fit import kept_lengths
from .scores import sample_scores
from .starts import answers, nearest_start, ratio_shapes, threshold_shapes


@dataclass(frozen=True)
class Faithfulness:
    """What is left of a dense model under a pruning, on texts that nothing was chosen by.

    same_answers: share of the texts whose likeliest class is the dense model's; None in regression.
    distance: KL of the answers to the dense model's, mean over the texts; squared error in regression.
    flops_reduction: FLOPs of packed dense over those of the pruned model, all texts together.   saved: share of the constraint's cost.
    tokens_alive: mean over the texts of the share of a text's tokens in the attention of each layer; last: at the end.   rows: texts.
    """

    same_answers: float | None
    distance: float
    flops_reduction: float
    saved: float
    tokens_alive: list[float]
    rows: int

    def to_dict(self) -> dict:
        """As JSON types."""
        return asdict(self)


def calibrate(
    model: nn.Module,
    cost: Callable[[Tensor, Tensor], Tensor],
    target: float,
    rows: Sequence[dict],
    collator: Collator,
    *,
    criterion: str,
    position: str = "after_attention",
    score_denominator: str | int = "kept",
    progress: Callable[[int, int], None] | None = None,
) -> tk.PruningConfig:
    """Of several shapes of thresholds or ratios, each as mild as the constraint allows, the one under which the model's answers on these
    texts are nearest to its own without pruning (`nearest_start`). Labels are not read, weights stay.

    model: from `tokprune_kernels.prune_model`, a classifier that reads its first tokens.   cost, target: FlopsCost or LatencyCost, and
    the share of it to save.   rows: see data.encoding.encode; a few hundred do.   criterion: "threshold" (LTP's) or "topk" (ToP's).
    position, score_denominator: see PruningConfig.   progress: called with (shapes fitted, shapes).

    Raises ValueError for another criterion, and where no shape saves as much.
    """
    layers = model.config.num_hidden_layers
    if criterion == "threshold":
        typical = float(sample_scores(model, rows, collator, score_denominator).median())
        shapes = list(threshold_shapes(layers, typical, position=position, score_denominator=score_denominator))
    elif criterion == "topk":
        shapes = list(ratio_shapes(layers, position, score_denominator=score_denominator))
    else:
        raise ValueError(f"criterion must be 'threshold' or 'topk', got {criterion!r}")
    pruning = nearest_start(model, shapes, cost, target, rows, collator, progress)
    lengths = kept_lengths(model, pruning, rows, collator)
    saved = 1 - float(cost(lengths, lengths[0]))
    if saved < target - 0.02:
        raise ValueError(
            f"no thresholds or ratios within reach save so much: the most is {1 / (1 - saved):.2f} times less, "
            f"asked for was {1 / (1 - target):.2f} times: ask for less"
        )
    return pruning


def faithfulness(
    model: nn.Module, pruning: tk.PruningConfig, cost: Callable[[Tensor, Tensor], Tensor], rows: Sequence[dict], collator: Collator
) -> Faithfulness:
    """Of the model, under this pruning, to itself without any; it is left with the pruning it had. See `Faithfulness`."""
    before = tk.PruningConfig.from_dict(model.config.pruning)
    model.set_pruning(tk.PruningConfig.dense())
    dense = answers(model, rows, collator)
    model.set_pruning(pruning)
    pruned = answers(model, rows, collator)
    model.set_pruning(before)
    lengths = kept_lengths(model, pruning, rows, collator)
    flops = encoder_flops(lengths, model.config, position=pruning.position).sum()
    return Faithfulness(
        same_answers=None if dense.shape[1] == 1 else float((dense.argmax(dim=1) == pruned.argmax(dim=1)).double().mean()),
        distance=float(prediction_distillation(pruned, dense)),
        flops_reduction=float(dense_flops(lengths[0], model.config).sum() / flops),
        saved=1 - float(cost(lengths, lengths[0])),
        tokens_alive=shares_alive(lengths),
        rows=len(rows),
    )
