"""An evaluation as lines for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tokprune_kernels.cli.table import format_table

from .evaluation import Evaluation
from .operating_points import OperatingPoint

_BASELINES = {"packed": "packed dense", "longest": "padded to each batch's longest", "maximum": "padded to {maximum}"}


def evaluation_pairs(evaluation: Evaluation) -> list[tuple[str, str]]:
    """(name, value) pairs: score, FLOPs against the three baselines, tokens alive by layer."""
    scores = ", ".join(f"{name} {100 * value:.2f} %" for name, value in evaluation.metrics.items())
    labels = {name: label.format(maximum=evaluation.max_length) for name, label in _BASELINES.items()}
    fewer = ", ".join(f"{evaluation.flops_reduction[name]:.2f}x than {label}" for name, label in labels.items())
    return [
        ("score", f"{scores} on {evaluation.rows} rows, tokens really removed"),
        ("fewer FLOPs", fewer),
        tokens_alive_pair(evaluation.tokens_alive),
    ]


def tokens_alive_pair(shares: Sequence[float]) -> tuple[str, str]:
    """(name, value) of the shares alive by layer (evaluation.shares_alive)."""
    return "tokens alive", f"{' '.join(f'{share:.2f}' for share in shares)} (share in each layer's attention; last: at the end)"


def operating_points_table(points: Sequence[OperatingPoint]) -> str:
    """The same weights at several speeds; not empty."""
    first = points[0].evaluation
    baselines = [_BASELINES[name].format(maximum=first.max_length) for name in first.flops_reduction]
    headers = ["asked for", *first.metrics, *(f"than {baseline}" for baseline in baselines)]
    rows = [
        [
            f"{point.speedup:g}x",
            *(f"{100 * value:.2f} %" for value in point.evaluation.metrics.values()),
            *(f"{value:.2f}x" for value in point.evaluation.flops_reduction.values()),
        ]
        for point in points
    ]
    return format_table(headers, rows)
