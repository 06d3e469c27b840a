"""Tile sizes that are shipped, by architecture. Nothing is tuned at run time; `gpu.tune` does it when asked.

A row is one kernel at one head size. The table suits every architecture from sm_80 on (sm_86 and sm_89 have the least shared
memory), and `FOR_ARCHITECTURE` says where a newer one takes another tile. Nothing spills, with one exception
that `gpu.aot` names: `python -m tokprune_kernels.gpu.aot` compiles all of them and fails where that does not hold.

`grad_keys` in float32 keeps to blocks of less than 64 keys. From 64 on Hopper multiplies with `wgmma`, and what triton 3.6 makes of
three chained TF32 products there was wrong on an H100, other bits in every run.
"""

from __future__ import annotations

import operator
import os
from functools import cache, reduce

import torch

from .._gpu import TILES_VARIABLE
from .launching import blocks
from .tiles import Key, LinearTile, Tile, read_tiles

HALF, FULL = "16-bit", "fp32"
# The forms of `attend_short`, which holds all of a text's head: their blocks are the longest text that they take. What no form takes
# (texts of large heads, in float32 of all but the smallest, whose tiles do not fit) goes through `attend_long`.
SHORT_FORMS = ("attend_short_64", "attend_short_128")
TILES: dict[Key, Tile] = {
    ("attend_short_64", HALF, 16): Tile(64, 64, 4, 1),
    ("attend_short_64", HALF, 32): Tile(64, 64, 4, 1),
    ("attend_short_64", HALF, 64): Tile(64, 64, 4, 1),
    ("attend_short_64", HALF, 128): Tile(64, 64, 4, 1),
    ("attend_short_64", FULL, 16): Tile(64, 64, 8, 1),
    ("attend_short_128", HALF, 16): Tile(128, 128, 4, 1),
    ("attend_short_128", HALF, 32): Tile(128, 128, 4, 1),
    ("attend_short_128", HALF, 64): Tile(128, 128, 8, 1),
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
    ("grad_keys", FULL, 16): Tile(32, 32, 4, 1),
    ("grad_keys", FULL, 32): Tile(16, 32, 8, 1),
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
        ("attend_short_128", HALF, 64): Tile(128, 128, 4, 1),
        ("attend_long", HALF, 64): Tile(128, 64, 4, 3),
        ("attend_long", HALF, 128): Tile(128, 64, 8, 2),
        ("grad_queries", HALF, 64): Tile(64, 64, 4, 2),
        ("grad_queries", HALF, 128): Tile(64, 64, 8, 1),
        ("grad_keys", HALF, 64): Tile(64, 64, 4, 2),
    },
}
LINEAR = "linear_rows"
# From large to small. A product takes the first whose blocks give so many of the multiprocessors one, else the last.
LINEAR_TILES: dict[Key, LinearTile] = {
    (LINEAR, HALF, 0): LinearTile(128, 128, 64, 8, 8, 3, 2),
    (LINEAR, HALF, 1): LinearTile(64, 64, 128, 8, 4, 3, 2),
    (LINEAR, HALF, 2): LinearTile(64, 32, 128, 8, 4, 3, 1),
    (LINEAR, FULL, 0): LinearTile(64, 64, 32, 8, 8, 2, 1),
}
BUSY = (1.0, 0.5)
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


@cache
def tiles_of(architecture: int) -> dict[Key, Tile]:
    """The table of a compute capability such as 90."""
    newer = (rows for first, rows in sorted(FOR_ARCHITECTURE.items()) if architecture >= first)
    return reduce(operator.or_, newer, TILES)


def architecture_here() -> int:
    """Compute capability of the current GPU; that of the table where there is none, and the interpreter runs."""
    return _architecture(torch.cuda.current_device()) if _has_gpu() else 80


@cache  # asked at every launch
def _has_gpu() -> bool:
    return torch.cuda.is_available()


@cache
def _architecture(device: int) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def short_forms(dtype: torch.dtype, head_dim: int) -> list[Tile]:
    """The tiles of the one-pass kernel, from short texts to long ones; none where all texts go through the other."""
    size, head = size_of(dtype), padded_head(head_dim)
    return [tile(form, dtype, head_dim) for form in SHORT_FORMS if (form, size, head) in TILES]


def linear_key(dtype: torch.dtype, rows: int, columns: int, processors: int) -> Key:
    """Which row of `LINEAR_TILES` a product takes on a GPU of so many multiprocessors."""
    size = size_of(dtype)
    keys = [key for key in LINEAR_TILES if key[1] == size]
    for key, busy in zip(keys, BUSY):
        shipped = LINEAR_TILES[key]
        if blocks(rows, shipped.block_m) * blocks(columns, shipped.block_n) >= busy * processors:
            return key
    return keys[-1]


def linear_tile(dtype: torch.dtype, rows: int, columns: int, processors: int) -> LinearTile:
    """The tile of `linear_rows` for a product; `OVERRIDES` comes first."""
    key = linear_key(dtype, rows, columns, processors)
    return OVERRIDES.get(key) or LINEAR_TILES[key]
