"""Bringing arguments into the layout that the kernels read."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..reference.encoder import READOUTS
from ..reference.linear import ACTIVATIONS

# While tracing the public functions leave the checks to the fake kernels, which make the same ones.
traced = torch.compiler.is_compiling


def dense(x: Tensor | None) -> Tensor | None:
    """x itself if it is contiguous (or None), else a contiguous copy."""
    return None if x is None else x.contiguous()


def head_rows(*tensors: Tensor) -> list[Tensor]:
    """Each (T, N_h, d) with every row's heads contiguous, any row stride; copied only if it is not so already."""
    return [x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous() for x in tensors]


def encoder_codes(
    activation: str, readout: str, thresholds: Sequence[float] | None, keep_ratios: Sequence[float] | None
) -> tuple[int, int, list[float], bool]:
    """What the encoder ops take for these: codes of activation and readout, `keep` and `topk`; ValueError for one that there is not."""
    for name, value, known in (("activation", activation, ACTIVATIONS), ("readout", readout, READOUTS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    if thresholds is not None and keep_ratios is not None:
        raise ValueError("give thresholds or keep_ratios, not both")
    topk = keep_ratios is not None
    keep = [float(value) for value in (keep_ratios if topk else thresholds) or ()]
    return ACTIVATIONS[activation], READOUTS[readout], keep, topk
