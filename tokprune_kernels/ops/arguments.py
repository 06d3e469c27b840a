"""Bringing arguments into the layout that the kernels read."""

import torch
from torch import Tensor

# While tracing the public functions leave the checks to the fake kernels, which make the same ones.
traced = torch.compiler.is_compiling


def dense(x: Tensor | None) -> Tensor | None:
    """x itself if it is contiguous (or None), else a contiguous copy."""
    return None if x is None else x.contiguous()


def head_rows(*tensors: Tensor) -> list[Tensor]:
    """Each (T, N_h, d) with every row's heads contiguous, any row stride; copied only if it is not so already."""
    return [x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous() for x in tensors]
