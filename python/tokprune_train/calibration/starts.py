"""Where learning begins: of several shapes that meet the constraint, the one that leaves the dense model's answers nearest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

import tokprune_kernels as tk

from ..data.encoding import Collator
from ..finite import NotFiniteError
from ..objectives.distillation import prediction_distillation
from ..objectives.gates import FIRST_ONLY
from ..running import outputs
from .fit import fit_to_target, kept_lengths

# Above every score, also where a fit has made it a quarter: the highest is a text's length, by a denominator of 1. After the last
# attention a head that reads the first token needs no other.
NO_OTHER = 4.0 * 512
# By this share of the cost a fit may miss its target: lengths are whole numbers.
_NEAR = 0.01
POWERS = (0.25, 0.5, 1.0, 2.0)
_RATIO = 0.7
# How much more the last of the layers that prune takes than the middle one does, and the middle one than the first: as powers.
_LEANS = (0.5, 1.0, 2.0)


def nearest_start(
    model: nn.Module,
    shapes: Sequence[tk.PruningConfig],
    cost: Callable[[Tensor, Tensor], Tensor],
    target: float,
    rows: Sequence[dict],
    collator: Collator,
    progress: Callable[[int, int], None] | None = None,
) -> tk.PruningConfig:
    """Each shape is made as mild as the constraint allows (`fit_to_target`), with tokens really removed and no training; the one
    whose answers on these rows are nearest to the dense model's (KL; squared error in regression) is returned so. Shapes that
    cannot save so much do not count, however near they are, unless none can: then the one that saves most is returned.

    model: dense, with a head; its own configuration is put back.   shapes: at least one.   rows: see data.encoding.encode.
    progress: called with (shapes fitted, shapes).
    """
    before = tk.PruningConfig.from_dict(model.config.pruning)
    model.set_pruning(tk.PruningConfig.dense())
    dense = answers(model, rows, collator)
    fitted = []
    for shape in shapes:
        fitted.append(fit_to_target(model, shape, cost, target, rows, collator))
        if progress is not None:
            progress(len(fitted), len(shapes))
    lengths = [kept_lengths(model, pruning, rows, collator) for pruning in fitted]
    saved = [1 - float(cost(kept, kept[0])) for kept in lengths]
    enough = min(target - _NEAR, max(saved))
    fitted = [pruning for pruning, share in zip(fitted, saved, strict=True) if share >= enough]
    distances = []
    for pruning in fitted:
        model.set_pruning(pruning)
        distances.append(float(prediction_distillation(answers(model, rows, collator), dense)))
    model.set_pruning(before)
    if not all(map(math.isfinite, distances)):
        raise NotFiniteError("the answers are too large for a distance between them to be finite: the model's weights are broken")
    return fitted[distances.index(min(distances))]


def check_power(power: float) -> None:
    """ValueError for a power of the depth that thresholds would fall as."""
    if not power >= 0:
        raise ValueError(f"thresholds must rise with the depth, by a power of at least 0, got {power}")


def threshold_shapes(
    layers: int, typical: float, powers: Sequence[float] = POWERS, position: str = "after_attention", **options
) -> Iterator[tk.PruningConfig]:
    """Thresholds that rise as these powers of the depth, steeply or not, to a `typical` score; after the last attention only [CLS] stays.

    position, options: of PruningConfig. Raises ValueError for a negative power (`check_power`).
    """
    for power in powers:
        check_power(power)
        rising = [typical * ((layer + 1) / layers) ** power for layer in range(layers - 1)]
        yield tk.PruningConfig.ltp([*rising, NO_OTHER] if position == "after_attention" else [0.0, *rising], position=position, **options)


def ratio_shapes(layers: int, position: str, **options) -> Iterator[tk.PruningConfig]:
    """All layers but the first ones, none, one or two of them, keep one ratio, or keep less in the first or in the last of them.

    position, options: of PruningConfig.
    """
    for whole, lean in itertools.product(range(min(3, layers - 1)), _LEANS):
        pruning = layers - 1 - whole
        powers = [lean ** (2 * at / max(1, pruning - 1) - 1) for at in range(pruning)]
        ratios = [1.0] * whole + [_RATIO**power for power in powers]
        at_once = position == "after_attention"
        yield tk.PruningConfig.top([*ratios, FIRST_ONLY] if at_once else [1.0, *ratios], position=position, **options)


def answers(model: nn.Module, rows: Sequence[dict], collator: Collator) -> Tensor:
    """(N, C) logits, in an order that only depends on the rows."""
    return torch.cat([output["logits"].float().cpu() for _, output in outputs(model, rows, collator)])
