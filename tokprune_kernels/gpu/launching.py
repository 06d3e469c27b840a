"""What every launcher needs: the device, block sizes, and the one place where the host asks the device for a number."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

# Arguments of kernels that count rows. They are new in every call: code of their own for those that are 1, or that 16 divides,
# would make the first such call wait for a compiler, and gain nothing.
ROW_COUNTS = ("total", "rows", "x_rows", "out_rows", "rows_of_x", "kept", "length")


def on_device(x: Tensor):
    """Kernels go to the current CUDA device: make it that of x. Nothing on the CPU, where the interpreter runs them."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def live_rows(cu_seqlens: Tensor) -> int:
    """The number of rows that bounds on the device end at: waits for the device."""
    return int(cu_seqlens[-1])


def blocks(size: int, block: int) -> int:
    """How many blocks cover `size`."""
    return -(-size // block)


def power_of_two(size: int) -> int:
    """The smallest power of two that is not less, the only sizes that tiles can have."""
    return 1 << max(0, size - 1).bit_length()


def dot_precision(dtype: torch.dtype) -> str:
    """How tensor cores multiply float32: as three products of TF32, which lose 2 bits of 24; one alone would lose 13 and move
    decisions. Of no meaning for 16-bit elements.
    """
    return "tf32x3" if dtype == torch.float32 else "tf32"


def given(x: Tensor | None, otherwise: Tensor) -> Tensor:
    """An optional argument, or any tensor in its place: kernels do not read what their flags say is absent."""
    return otherwise if x is None else x
