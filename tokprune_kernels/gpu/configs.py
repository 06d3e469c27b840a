"""Tile sizes that are shipped, by architecture. Nothing is tuned at run time; `gpu.tune` does it when asked.

A row is one kernel at one head size. The table suits every architecture from sm_80 on (sm_86 and sm_89 have the least shared
memory), and `FOR_ARCHITECTURE` says where a newer one takes another tile. Nothing spills, with one exception
that `gpu.aot` names: `python -m tokprune_kernels.gpu.aot` compiles all of them and fails where that does not hold.
"""

from __future__ import annotations

import operator
import os
from functools import cache, reduce

import torch

from .._gpu import TILES_VARIABLE
from .tiles import Key, LinearTile, Tile, read_tiles

HALF, FULL = "16-bit", "fp32"
# `attend_short` holds all keys of a head: its block_n is the longest text that it takes. Where it has no row (float32, whose tiles do not fit) all texts take `attend_long`.
TILES: dict[Key, Tile] = {
    ("attend_short", HALF, 16): Tile(64, 128, 4, 1),
    ("attend_short", HALF, 32): Tile(64, 128, 4, 1),
    ("attend_short", HALF, 64): Tile(64, 128, 4, 1),
    ("attend_short", HALF, 128): Tile(64, 128, 8, 1),
    ("attend_short", FULL, 16): Tile(64, 128, 8, 1),
    ("attend_long", HALF, 16): Tile(128, 64, 4, 3),
    ("attend_long", HALF, 32): Tile(128, 64, 4, 3),
    ("attend_long", HALF, 64): Tile(128, 64, 4, 3),
    ("attend_long", HALF, 128): Tile(64, 64, 4, 2),
    ("attend_long", FULL, 16): Tile(64, 64, 8, 1),
    ("attend_long", FULL, 32): Tile(64, 64, 8, 1),
    ("attend_long", FULL, 64): Tile(32, 32, 8, 1),
    ("attend_long", FULL, 128): Tile(16, 32, 8, 1),
    ("column_sums", HALF, 16): Tile(64, 128, 8, 3),
    ("column_sums", HALF, 32): Tile(64, 128, 8, 3),
    ("column_sums", HALF, 64): Tile(64, 128, 8, 3),
    ("column_sums", HALF, 128): Tile(64, 128, 8, 2),
    ("column_sums", FULL, 16): Tile(64, 64, 8, 1),
    ("column_sums", FULL, 32): Tile(64, 64, 8, 1),
    ("column_sums", FULL, 64): Tile(32, 64, 8, 1),
    ("column_sums", FULL, 128): Tile(16, 64, 8, 1),
    ("grad_queries", HALF, 16): Tile(64, 64, 4, 2),
    ("grad_queries", HALF, 32): Tile(64, 64, 4, 2),
    ("grad_queries", HALF, 64): Tile(64, 64, 4, 2),
    ("grad_queries", HALF, 128): Tile(64, 64, 8, 1),
    ("grad_queries", FULL, 16): Tile(64, 32, 8, 1),
    ("grad_queries", FULL, 32): Tile(64, 32, 8, 1),
    ("grad_queries", FULL, 64): Tile(32, 32, 4, 1),
    ("grad_queries", FULL, 128): Tile(16, 16, 4, 1),
    ("grad_keys", HALF, 16): Tile(64, 64, 4, 2),
    ("grad_keys", HALF, 32): Tile(64, 64, 4, 2),
    ("grad_keys", HALF, 64): Tile(32, 64, 8, 1),
    ("grad_keys", HALF, 128): Tile(32, 64, 8, 1),
    ("grad_keys", FULL, 16): Tile(32, 64, 8, 1),
    ("grad_keys", FULL, 32): Tile(16, 64, 8, 1),
    ("grad_keys", FULL, 64): Tile(16, 32, 8, 1),
    ("grad_keys", FULL, 128): Tile(16, 16, 8, 1),
}
# Compute capability -> rows that are other there and on all that come after it.
FOR_ARCHITECTURE: dict[int, dict[Key, Tile]] = {
    86: {
        ("attend_long", HALF, 64): Tile(64, 64, 4, 3),
        ("grad_queries", HALF, 64): Tile(64, 64, 8, 2),
        ("grad_queries", HALF, 128): Tile(64, 32, 8, 1),
        ("grad_queries", FULL, 64): Tile(32, 16, 4, 1),
    },
    90: {
        ("attend_long", HALF, 64): Tile(128, 64, 4, 3),
        ("attend_long", HALF, 128): Tile(128, 64, 8, 2),
        ("grad_queries", HALF, 64): Tile(64, 64, 4, 2),
        ("grad_queries", HALF, 128): Tile(64, 64, 8, 1),
        ("grad_keys", HALF, 64): Tile(64, 64, 4, 2),
    },
}
LINEAR = "linear_rows"
LINEAR_TILES: dict[Key, LinearTile] = {
    (LINEAR, HALF, 0): LinearTile(128, 128, 64, 8, 8, 3),
    (LINEAR, FULL, 0): LinearTile(64, 64, 32, 8, 8, 2),
}
HEAD_SIZES = (16, 32, 64, 128)
# Taken instead of the shipped ones: those of the file that TOKPRUNE_GPU_TILES names, and what trials put here.
OVERRIDES: dict[Key, Tile | LinearTile] = read_tiles(os.environ[TILES_VARIABLE], TILES | LINEAR_TILES) if os.environ.get(TILES_VARIABLE) else {}


def size_of(dtype: torch.dtype) -> str:
    """How the tables call the size of its elements."""
    return FULL if dtype == torch.float32 else HALF


def padded_head(head_dim: int) -> int:
    """The head size that tiles have: a power of two from 16 on. ValueError beyond the largest."""
    for size in HEAD_SIZES:
        if head_dim <= size:
            return size
    raise ValueError(f"the GPU kernels take heads of up to {HEAD_SIZES[-1]} channels, got {head_dim}")


def tile(kernel: str, dtype: torch.dtype, head_dim: int) -> Tile:
    """The tile of a kernel on the current GPU; `OVERRIDES` comes first."""
    key = (kernel, size_of(dtype), padded_head(head_dim))
    return OVERRIDES.get(key) or tiles_of(architecture_here())[key]


def tiles_of(architecture: int) -> dict[Key, Tile]:
    """The table of a compute capability such as 90."""
    newer = (rows for first, rows in sorted(FOR_ARCHITECTURE.items()) if architecture >= first)
    return reduce(operator.or_, newer, TILES)


def architecture_here() -> int:
    """Compute capability of the current GPU; that of the table where there is none, and the interpreter runs."""
    return _architecture(torch.cuda.current_device()) if torch.cuda.is_available() else 80


@cache
def _architecture(device: int) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def short_limit(dtype: torch.dtype, head_dim: int) -> int:
    """The longest sequence of the one-pass kernel; 0 where all go through the other."""
    one_pass = TILES.get(("attend_short", size_of(dtype), padded_head(head_dim)))
    return one_pass.block_n if one_pass else 0


def linear_tile(dtype: torch.dtype) -> LinearTile:
    """The tile of `linear_rows`; `OVERRIDES` comes first."""
    key = (LINEAR, size_of(dtype), 0)
    return OVERRIDES.get(key) or LINEAR_TILES[key]
