"""What a tile is, and tiles in a file: a user's own, or those that `gpu.tune` found fastest on a GPU."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from .._gpu import TILES_VARIABLE


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
    """Rows, columns and inner steps of a tile of a product; row blocks that are worked on together; warps; tiles fetched ahead;
    programs that share out the tiles, for each multiprocessor.
    """

    block_m: int
    block_n: int
    block_k: int
    group: int
    num_warps: int
    num_stages: int
    programs: int

    @property
    def arguments(self) -> dict[str, int]:
        """As the kernel takes them."""
        sizes = {"BLOCK_M": self.block_m, "BLOCK_N": self.block_n, "BLOCK_K": self.block_k, "GROUP": self.group}
        return {**sizes, "num_warps": self.num_warps, "num_stages": self.num_stages}


# Of a file's tiles, beyond which no GPU or no compiler goes: sizes of blocks, warps of a program, tiles fetched ahead, row blocks
# worked on together, programs a multiprocessor.
_MOST = {"block_m": 512, "block_n": 512, "block_k": 512, "num_warps": 32, "num_stages": 16, "group": 1024, "programs": 64}

# (kernel, size of elements, padded head size); a product has no heads: its number among the tiles, from large to small.
Key = tuple[str, str, int]
Table = Mapping[Key, Tile | LinearTile]


def tuned_file(architecture: int) -> Path:
    """Where `gpu.tune` puts what it finds: tokprune_kernels/gpu_tiles_sm<architecture>.json in $XDG_CACHE_HOME or ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "tokprune_kernels" / f"gpu_tiles_sm{architecture}.json"


def write_tiles(path: Path, table: Table, measured_on: Mapping[str, str]) -> None:
    """Write a table that `read_tiles` reads.   measured_on: what the reader of the file should know, such as the GPU's name."""
    rows = [{"kernel": kernel, "elements": size, "head": head, **asdict(tile)} for (kernel, size, head), tile in table.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"measured_on": dict(measured_on), "tiles": rows}, indent=1) + "\n", encoding="utf-8")


def read_tiles(path: str | Path, shipped: Table) -> dict[Key, Tile | LinearTile]:
    """The tiles of a file.   shipped: rows that a file may replace.

    Raises ValueError, which names the file and the row, for a file that is not such a table, a row that nothing ships, a size that
    is not a power of two from 16 (warps, row blocks, programs and stages: from 1) to its maximum, or an `attend_short` for another
    longest text.
    """
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))["tiles"]
        return dict(_entry(row, shipped) for row in rows)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{str(path)!r} is not a table of GPU tiles ({type(error).__name__}: {error}): {TILES_VARIABLE} must name one that "
            "`python -m tokprune_kernels.gpu.tune` wrote, or be unset"
        ) from error
    except ValueError as error:
        raise ValueError(f"in the table of GPU tiles {str(path)!r} {error}") from error


def _entry(row: dict, shipped: Table) -> tuple[Key, Tile | LinearTile]:
    key = (row["kernel"], row["elements"], row["head"])
    if key not in shipped:
        raise ValueError(f"there is a row of {key}: no kernel takes a tile for that; configs.py lists what there is")
    kind = type(shipped[key])
    values = {field.name: row[field.name] for field in fields(kind)}
    for name, value in values.items():
        least = 16 if name.startswith("block") else 1
        power = "" if name == "num_stages" else "a power of two "
        if type(value) is not int or not least <= value <= _MOST[name] or (power and value & (value - 1)):
            raise ValueError(f"the row of {key} has {name} {value!r}: it must be {power}from {least} to {_MOST[name]}")
    tile = kind(**values)
    longest = shipped[key].block_n
    if key[0].startswith("attend_short") and (tile.block_m, tile.block_n) != (longest, longest):
        raise ValueError(f"the row of {key} has blocks of {tile.block_m} and {tile.block_n}: both are its longest text, {longest}")
    return key, tile
