"""Time other tiles than the shipped ones on the GPU here, when asked: python -m tokprune_kernels.gpu.tune --head 64 --dtype bfloat16

Tries the tiles of each kernel on a batch of texts, takes the fastest whose results match the shipped one's, and writes the table to
a file, by default $XDG_CACHE_HOME/tokprune_kernels/gpu_tiles_sm<capability>.json (~/.cache without the variable). Rows of other head
sizes that are there already stay. Nothing reads the file but a process with TOKPRUNE_GPU_TILES=<file>. Takes minutes: each tile is
compiled.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import triton

from .._gpu import TILES_VARIABLE
from . import configs
from .attention import attn_importance
from .attention_backward import attn_importance_backward
from .linear import linear_into, processors
from .tiles import Key, LinearTile, Tile, read_tiles, tuned_file, write_tiles

# A tile that is not faster by this much is within the noise: the shipped one stays.
WORTHWHILE = 0.97
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}


@dataclass(frozen=True)
class Trial:
    """One kernel to be tuned.   run: calls the op that it is the larger part of and returns what it computed."""

    key: Key
    shipped: Tile | LinearTile
    candidates: Iterable[Tile | LinearTile]
    run: Callable[[], tuple[torch.Tensor, ...]]


def fastest(trial: Trial, milliseconds: Callable[[Callable], float], tell: Callable[[str], None] = print) -> Tile | LinearTile:
    """The candidate that is fastest, or the shipped tile where none is by WORTHWHILE.

    milliseconds: of a call.   A candidate that the GPU has no room for, or whose results are not the shipped tile's, is passed over.
    """
    with _override(trial.key, trial.shipped):
        expected, base = trial.run(), milliseconds(trial.run)
    best, best_time = trial.shipped, base
    for candidate in trial.candidates:
        with _override(trial.key, candidate):
            try:
                if not _same(trial.run(), expected):
                    tell(f"{trial.key}: {candidate} gives other results, passed over")
                    continue
                time = milliseconds(trial.run)
            except Exception as error:  # a GPU without room, a compiler or an assembler that refuses: each has an exception of its own
                tell(f"{trial.key}: {candidate} passed over: {type(error).__name__}")
                continue
        if time < best_time:
            best, best_time = candidate, time
    if best_time > WORTHWHILE * base:
        best, best_time = trial.shipped, base
    tell(f"{trial.key}: {best_time:.4f} ms with {best}, {base:.4f} ms as shipped")
    return best


@contextmanager
def _override(key: Key, tile: Tile | LinearTile) -> Iterator[None]:
    """The tile of a key while the block runs."""
    before = dict(configs.OVERRIDES)
    configs.OVERRIDES[key] = tile
    try:
        yield
    finally:
        configs.OVERRIDES.clear()
        configs.OVERRIDES.update(before)


def _same(actual: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> bool:
    for ours, theirs in zip(actual, expected, strict=True):
        largest = theirs.abs().max().clamp(min=1e-6)
        if not float((ours.float() - theirs.float()).abs().max() / largest) <= _TOLERANCE[theirs.dtype]:
            return False
    return True


def tiles_like(shipped: Tile) -> Iterator[Tile]:
    """What is tried in place of an attention kernel's tile."""
    for rows, columns, warps, stages in itertools.product((16, 32, 64, 128), (32, 64, 128), (4, 8), (1, 2, 3)):
        if shipped != (candidate := Tile(rows, columns, warps, stages)):
            yield candidate


def linear_tiles_like(shipped: LinearTile) -> Iterator[LinearTile]:
    """What is tried in place of a product's."""
    sizes = itertools.product((64, 128, 256), (32, 64, 128, 256), (32, 64, 128), (4, 8), (2, 3, 4), (1, 2))
    for rows, columns, inner, warps, stages, programs in sizes:
        candidate = LinearTile(rows, columns, inner, shipped.group, warps, stages, programs)
        if rows * columns <= 128 * 256 and shipped != candidate:
            yield candidate


def trials(head_dim: int, heads: int, lengths: torch.Tensor, dtype: torch.dtype, device: str, seed: int = 0) -> Iterator[Trial]:
    """Every kernel that has a tile for this head size, on texts of these lengths; short ones for the one-pass kernel."""
    shipped = configs.tiles_of(configs.architecture_here())
    size, head = configs.size_of(dtype), configs.padded_head(head_dim)
    attention = {**dict.fromkeys(configs.SHORT_FORMS, False), "attend_long": False, "column_sums": False, "grad_queries": True, "grad_keys": True}
    for kernel, backward in attention.items():
        tile = shipped.get((kernel, size, head))
        if tile is None:
            continue
        candidates = tiles_like(tile)
        of = lengths
        if kernel in configs.SHORT_FORMS:
            candidates, of = [replace(tile, num_warps=warps) for warps in (2, 4, 8)], lengths.clamp(max=tile.block_n)
        yield Trial((kernel, size, head), tile, dict.fromkeys(candidates), _attention(head_dim, heads, of, dtype, device, seed, backward))
    width, total = head_dim * heads, int(lengths.sum())
    found = set()
    for rows in (total, *(2**power for power in range(12, 3, -1))):  # the largest product that takes each tile
        key = configs.linear_key(dtype, rows, 4 * width, processors(torch.device(device)))
        if key not in found:
            found.add(key)
            tile = configs.LINEAR_TILES[key]
            yield Trial(key, tile, linear_tiles_like(tile), _product(width, rows, dtype, device, seed))


def _attention(head_dim, heads, lengths, dtype, device, seed, backward) -> Callable[[], tuple[torch.Tensor, ...]]:
    generator = torch.Generator(device).manual_seed(seed)
    total, longest, scale = int(lengths.sum()), int(lengths.max()), head_dim**-0.5
    q, k, v, gradient = torch.randn(4, total, heads, head_dim, generator=generator, device=device).to(dtype)
    cu_seqlens = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(device, torch.int32)
    if backward:
        of_importance = torch.randn(total, generator=generator, device=device)
        return lambda: attn_importance_backward(gradient, of_importance, q, k, v, cu_seqlens, longest, scale)[:3]
    return lambda: attn_importance(q, k, v, cu_seqlens, longest, scale)


def _product(width, rows, dtype, device, seed) -> Callable[[], tuple[torch.Tensor, ...]]:
    """The wide product of a feed-forward layer, with a GELU."""
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(rows, width, generator=generator, device=device).to(dtype)
    weight = torch.randn(4 * width, width, generator=generator, device=device).to(dtype) * width**-0.5
    bias = torch.zeros(4 * width, device=device, dtype=dtype)

    def run():
        out = torch.empty(rows, 4 * width, device=device, dtype=dtype)
        linear_into(out, x, weight, bias, activation=1)
        return (out,)

    return run


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tokprune_kernels.gpu.tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--head", type=int, default=64, metavar="N", help="channels of a head (default 64)")
    parser.add_argument("--heads", type=int, default=12, metavar="N", help="default 12")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16", help="default bfloat16")
    parser.add_argument("--tokens", type=int, default=65536, metavar="N", help="in the batch (default 65536)")
    parser.add_argument("--lengths", type=int, nargs=2, default=(128, 512), metavar=("LEAST", "MOST"), help="of the texts (default 128 512)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: the cache file above")
    args = parser.parse_args(argv)
    least, most = args.lengths
    if not 1 <= least <= most <= args.tokens:
        parser.error(f"the lengths must be in order and the tokens enough for one text, got {least} {most} and {args.tokens} tokens")
    if args.head < 1 or args.heads < 1:
        parser.error(f"--head and --heads must be at least 1, got {args.head} and {args.heads}")
    if not torch.cuda.is_available():
        parser.error("tuning needs a CUDA GPU, and there is none here")
    try:
        configs.padded_head(args.head)
        path = args.out or tuned_file(configs.architecture_here())
        found = read_tiles(path, configs.TILES | configs.LINEAR_TILES) if path.is_file() else {}
    except ValueError as error:
        parser.error(str(error))
    dtype = getattr(torch, args.dtype)
    lengths = torch.randint(least, most + 1, (max(1, 2 * args.tokens // (least + most)),), generator=torch.Generator().manual_seed(0))
    measured_on = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": triton.__version__}
    for trial in trials(args.head, args.heads, lengths, dtype, "cuda"):
        found[trial.key] = fastest(trial, lambda run: triton.testing.do_bench(run, return_mode="median"))
        write_tiles(path, found, measured_on)
    print(f"written; to use it: {TILES_VARIABLE}={path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
