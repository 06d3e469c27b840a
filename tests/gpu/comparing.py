"""A GPU kernel's results beside the reference's; also for benches/gpu.py, which checks on real GPUs what it will time."""

import copy

import torch

# Of a GPU's results, relative to the largest value.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
# Decisions compare float32 scores, which another precision may move across a threshold.
FLOAT32_INPUT = ("keep_threshold", "keep_topk", "prune_attention")


def widened(name: str):
    """What the reference of an op gets of each tensor: float64, where no decision hangs on it."""
    wide = torch.float32 if name in FLOAT32_INPUT else torch.float64
    return lambda x: x.to(wide) if x.is_floating_point() else x


def comparable(name: str, dtype: torch.dtype) -> bool:
    """Whether an op's results can be compared: in 16 bits a score may round across a threshold, and other rows stay."""
    return name != "prune_attention" or dtype == torch.float32


def call(function, sample, convert=lambda x: x) -> list[torch.Tensor]:
    """The results on converted tensors, or the tensor that was changed in place."""
    args, kwargs = torch.utils._pytree.tree_map_only(torch.Tensor, convert, copy.deepcopy((sample.args, sample.kwargs)))
    result = function(*args, **kwargs)
    if result is None:
        return [args[0]]
    return [result] if isinstance(result, torch.Tensor) else list(result)


def difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest error relative to the largest value; infinite for another shape, other integers, or a NaN.

    Where all values are 0 but for rounding, as the scores' gradients of a single token, it is the error itself.
    """
    if actual.shape != expected.shape:
        return float("inf")
    if not actual.is_floating_point():
        return 0.0 if torch.equal(actual, expected) else float("inf")
    if not actual.numel():
        return 0.0
    largest = float(expected.double().abs().max())
    error = (actual.double() - expected.double()).abs().max() / (largest if largest > 1e-6 else 1.0)
    return float(error.nan_to_num(float("inf")))


def largest_head(sample) -> int:
    """Channels of a head, where the op has heads (the last of three dimensions beside bounds)."""
    tensors = [x for x in sample.args if isinstance(x, torch.Tensor)]
    return tensors[0].shape[2] if len(tensors) >= 4 and tensors[0].dim() == 3 else 0
