"""Tile sizes that are shipped, by architecture: nothing is tuned at run time.

A row is one kernel at one head size. The table suits every architecture from sm_80 on (sm_86 and sm_89 have the least shared
memory), and `FOR_ARCHITECTURE` says where a newer one takes another tile. Nothing spills, with one exception
that `gpu.aot` names: `python -m tokprune_kernels.gpu.aot` compiles all of them and fails where that does not hold.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import cache, reduce

import torch


@dataclass(frozen=True)
class Tile:
    """Rows of queries and of keys of a tile, warps of a program, and how many tiles are fetched ahead of use."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int

    @property
    def arguments(self) -> dict[str, int]:
        """As the kernels take them."""
        return {"BLOCK_M": self.block_m, "BLOCK_N": self.block_n, "num_warps": self.num_warps, "num_stages": self.num_stages}


@dataclass(frozen=True)
class LinearTile:
    """Rows, columns and inner steps of a tile of a product; row blocks that are worked on together; warps; tiles fetched ahead."""

    block_m: int
    block_n: int
    block_k: int
    group: int
    num_warps: int
    num_stages: int

    @property
    def arguments(self) -> dict[str, int]:
        """As the kernel takes them."""
        sizes = {"BLOCK_M": self.block_m, "BLOCK_N": self.block_n, "BLOCK_K": self.block_k, "GROUP": self.group}
        return {**sizes, "num_warps": self.num_warps, "num_stages": self.num_stages}


HALF, FULL = "16-bit", "fp32"
# (kernel, size of elements, padded head size) -> tile. `attend_short` holds all keys of a head: its block_n is the
# longest text that it takes. Where it has no row (float32, whose tiles do not fit) all texts take `attend_long`.
TILES: dict[tuple[str, str, int], Tile] = {
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
FOR_ARCHITECTURE: dict[int, dict[tuple[str, str, int], Tile]] = {
    90: {
        ("attend_long", HALF, 128): Tile(128, 64, 8, 2),
        ("grad_queries", FULL, 64): Tile(32, 16, 4, 1),
        ("grad_keys", HALF, 64): Tile(64, 64, 4, 2),
    },
}
LINEAR_TILES: dict[str, LinearTile] = {
    HALF: LinearTile(128, 128, 64, 8, 8, 3),
    FULL: LinearTile(64, 64, 32, 8, 8, 2),
}
HEAD_SIZES = (16, 32, 64, 128)


def padded_head(head_dim: int) -> int:
    """The head size that tiles have: a power of two from 16 on. ValueError beyond the largest."""
    for size in HEAD_SIZES:
        if head_dim <= size:
            return size
    raise ValueError(f"the GPU kernels take heads of up to {HEAD_SIZES[-1]} channels, got {head_dim}")


def tile(kernel: str, dtype: torch.dtype, head_dim: int) -> Tile:
    """The tile of a kernel on the current GPU; `OVERRIDES` comes first."""
    key = (kernel, FULL if dtype == torch.float32 else HALF, padded_head(head_dim))
    return OVERRIDES.get(key) or tiles_of(_architecture())[key]


def tiles_of(architecture: int) -> dict[tuple[str, str, int], Tile]:
    """The table of a compute capability such as 90."""
    newer = (rows for first, rows in sorted(FOR_ARCHITECTURE.items()) if architecture >= first)
    return reduce(operator.or_, newer, TILES)


@cache
def _architecture() -> int:
    """Compute capability of the current GPU; that of the table where there is none, and the interpreter runs."""
    major, minor = torch.cuda.get_device_capability() if torch.cuda.is_available() else (8, 0)
    return 10 * major + minor


def short_limit(dtype: torch.dtype, head_dim: int) -> int:
    """The longest sequence of the one-pass kernel; 0 where all go through the other."""
    one_pass = TILES.get(("attend_short", FULL if dtype == torch.float32 else HALF, padded_head(head_dim)))
    return one_pass.block_n if one_pass else 0


def linear_tile(dtype: torch.dtype) -> LinearTile:
    """The tile of `linear_rows`."""
    return LINEAR_TILES[FULL if dtype == torch.float32 else HALF]


# For trials: a tile put here under its key is taken instead of the shipped one.
OVERRIDES: dict[tuple[str, str, int], Tile] = {}
