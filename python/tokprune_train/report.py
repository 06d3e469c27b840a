"""An evaluation as lines for the terminal."""

from __future__ import annotations

from .evaluation import Evaluation

_BASELINES = {"packed": "packed dense", "longest": "padded to each batch's longest", "maximum": "padded to {maximum}"}


def evaluation_pairs(evaluation: Evaluation) -> list[tuple[str, str]]:
    """(name, value) pairs: score, FLOPs against the three baselines, tokens alive by layer."""
    scores = ", ".join(f"{name} {100 * value:.2f} %" for name, value in evaluation.metrics.items())
    labels = {name: label.format(maximum=evaluation.max_length) for name, label in _BASELINES.items()}
    fewer = ", ".join(f"{evaluation.flops_reduction[name]:.2f}x than {label}" for name, label in labels.items())
    alive = " ".join(f"{share:.2f}" for share in evaluation.tokens_alive)
    return [
        ("score", f"{scores} on {evaluation.rows} rows, tokens really removed"),
        ("fewer FLOPs", fewer),
        ("tokens alive", f"{alive} (share in each layer's attention; last: at the end)"),
    ]
