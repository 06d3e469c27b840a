"""Compile every shipped kernel in every shipped configuration, without a GPU: python -m tokprune_kernels.gpu.aot --arch 80 90

Prints registers, spills and shared memory of each, and exits with 1 if one spills, needs more shared memory than the
architecture has, or multiplies without the tensor cores where they were meant to do it.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from . import attention, attention_backward, decision, gather, linear, norm, prune_attention
from .configs import FULL, HALF, HEAD_SIZES, LINEAR_TILES, SHORT_FORMS, tiles_of
from .launching import dot_precision

# Bytes of shared memory that a program can have.
SHARED_MEMORY = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024}
# (kernel, elements, head size) -> bytes a thread may spill. Float32 gradients of heads of 128 channels: as three TF32 products every
# tile is held three times, and no tile that was tried does without; trainings multiply in 16 bits.
SPILLS_TOLERATED = {("grad_queries", "fp32", 128): 512}
# Of a head; BERT has 12, and every count compiles to the same but for a loop's length.
HEADS = 12
_ELEMENTS = {"bf16": HALF, "fp16": HALF, "fp32": FULL}
_FLOAT_POINTERS = {
    "partials", "importance", "row_stats", "delta", "row_sums", "bias_sums", "parts", "grad_importance", "denominators", "key_bias",
    "row_weights",
}  # fmt: skip
_INT_POINTERS = {"cu_seqlens", "new_cu_seqlens", "counts", "count", "keep_idx", "index", "token_idx", "position", "residual_index"}
_BYTE_POINTERS = {"flags", "protected", "mask_values"}
_FLOATS = {"scale", "eps", "value", "value_low"}
_INTS = {"total", "rows", "width", "columns", "inner", "length", "kept", "rows_of_x", "out_rows", "x_rows"}


@dataclass(frozen=True)
class Variant:
    """One compilation: a kernel with its constants; elements: dtype of its main tensors; multiplies: by tensor cores."""

    kernel: object
    label: str
    elements: str
    constants: dict
    num_warps: int = 4
    num_stages: int = 3
    multiplies: bool = False

    def source(self) -> ASTSource:
        """What triton compiles, with the alignment that torch's allocations and whole heads give."""
        names = self.kernel.arg_names
        signature = {name: "constexpr" if name in self.constants else self._type(name) for name in names}
        whole = ("columns", "inner", "width")  # as in any BERT; row counts are never specialised
        aligned = [index for index, name in enumerate(names) if signature[name].startswith("*") or name.endswith("stride") or name in whole]
        attributes = {(index,): [["tt.divisibility", 16]] for index in aligned}
        return ASTSource(self.kernel, signature, {(names.index(name),): value for name, value in self.constants.items()}, attributes)

    def _type(self, name: str) -> str:
        for names, kind in ((_FLOAT_POINTERS, "*fp32"), (_INT_POINTERS, "*i32"), (_BYTE_POINTERS, "*i8"), (_FLOATS, "fp32"), (_INTS, "i32")):
            if name in names:
                return kind
        return "i32" if name.endswith("stride") else f"*{self.elements}"


@dataclass(frozen=True)
class Compiled:
    """What became of a variant.   shared: bytes.   spills: bytes stored and loaded."""

    registers: int
    spills: int
    shared: int
    tensor_cores: bool
    wgmma: bool = False


def variants(arch: int) -> Iterator[Variant]:
    """Everything that is shipped for an architecture."""
    yield from _attention(tiles_of(arch))
    yield from _decisions()
    for elements in ("i16", "i32", "i64"):
        block = gather.ROW_BYTES // {"i16": 2, "i32": 4, "i64": 8}[elements]
        tile = {"ROWS": gather.TILE // block, "BLOCK": block}
        yield Variant(gather.gather_rows, "counted", elements, {"COUNTED": True, **tile})
        yield Variant(gather.scatter_rows, "all options", elements, {"COUNTED": True, "FLAGGED": True, **tile})
        yield Variant(gather.store_leavers, "", elements, {"SEARCH_STEPS": 16, **tile})
    for elements in ("bf16", "fp16", "fp32"):
        for block in (512, 1024):
            flags = {"COUNTED": True, "INDEXED": True, "BLOCK": block}
            yield Variant(norm.add_layer_norm_rows, f"width {block}", elements, flags, max(1, block // 256))
        tiles = [tile for (_, size, _), tile in LINEAR_TILES.items() if size == _ELEMENTS[elements]]
        for tile, activation in itertools.product(tiles, range(4)):
            constants = {
                "ACTIVATION": activation, "COUNTED": True, "INDEXED": True, "PRECISION": _precision(elements),
                **tile.arguments,
            }  # fmt: skip
            warps, stages = constants.pop("num_warps"), constants.pop("num_stages")
            label = f"{tile.block_m} x {tile.block_n}, activation {activation}"
            yield Variant(linear.linear_rows, label, elements, constants, warps, stages, multiplies=True)


def _precision(elements: str) -> str:
    return dot_precision(torch.float32 if elements == "fp32" else torch.float16)


def _attention(tiles: dict) -> Iterator[Variant]:
    kernels = {
        **dict.fromkeys(SHORT_FORMS, (attention.attend_short, ("BIAS", "WEIGHTS", "IMPORTANCE"))),
        "attend_long": (attention.attend_long, ("BIAS", "IMPORTANCE")),
        "column_sums": (attention.column_sums, ("BIAS", "WEIGHTS")),
        "grad_queries": (attention_backward.grad_queries, ("BIAS", "WEIGHTS", "DENOMINATORS")),
        "grad_keys": (attention_backward.grad_keys, ("BIAS", "WEIGHTS", "DENOMINATORS")),
    }
    for elements, size in _ELEMENTS.items():
        for head in HEAD_SIZES:
            for name, (kernel, flags) in kernels.items():
                tile = tiles.get((name, size, head))
                if tile is None:
                    continue
                fixed = {"HEADS": HEADS, "HEAD_DIM": head, "BLOCK_D": head, "PRECISION": _precision(elements)}
                fixed |= {"BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n}
                if "SHORT" in kernel.arg_names:
                    fixed["SHORT"] = 128
                if name in SHORT_FORMS:
                    fixed["SHORTER"] = tile.block_n // 2
                for options in ((), flags):  # nothing, and everything: what lies between needs no more than the latter
                    constants = fixed | {flag: flag in options or flag == "IMPORTANCE" for flag in flags}
                    label = f"{name}, head {head}" + (", all options" if options else "")
                    yield Variant(kernel, label, elements, constants, tile.num_warps, tile.num_stages, multiplies=True)


def _decisions() -> Iterator[Variant]:
    for label, topk, count_first in (("threshold", False, True), ("top-k", True, True), ("top-k past the first", True, False)):
        block = decision.RANK_BLOCK if topk else decision.BLOCK
        flags = {"TOPK": topk, "PROTECTED": True, "PROTECT_FIRST": True, "COUNT_FIRST": count_first, "BLOCK": block}
        yield Variant(decision.flag_rows, label, "i8", flags)
        scored = {"HEADS": HEADS, "DENOMINATORS": True, **flags}
        yield Variant(prune_attention.score_and_flag, label, "i8", scored)
    yield Variant(decision.place_rows, "", "i8", {"BLOCK": decision.BLOCK, "COUNT_BLOCK": decision.COUNT_BLOCK})
    reduced = {"HEADS": HEADS, "BLOCK": attention.REDUCE_BLOCK, "DENOMINATORS": True}
    yield Variant(attention.reduce_partials, "", "fp32", reduced)
    summed = {"HEADS": HEADS, "BLOCK": attention_backward.SUM_BLOCK}
    yield Variant(attention_backward.sum_over_heads, "", "fp32", {**summed}, multiplies=False)
    yield Variant(gather.count_live, "", "i8", {"BLOCK": gather.MASK_BLOCK})
    yield Variant(gather.place_live, "", "i8", {"BLOCK": gather.MASK_BLOCK, "COUNT_BLOCK": gather.COUNT_BLOCK})


def compile_variant(variant: Variant, arch: int) -> Compiled:
    """Compile for sm_<arch>; raises what triton raises."""
    options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
    kernel = triton.compile(variant.source(), target=GPUTarget("cuda", arch, 32), options=options)
    ptx = kernel.asm["ptx"]
    registers, spills = _resources(ptx, arch)
    wgmma = "wgmma.mma_async" in ptx
    return Compiled(registers, spills, kernel.metadata.shared, wgmma or "mma.sync" in ptx, wgmma)


def _resources(ptx: str, arch: int) -> tuple[int, int]:
    """Registers of a thread and bytes spilled, from the assembler's own report."""
    target = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)[1]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [get_ptxas(arch).path, "-v", f"--gpu-name={target}", str(source), "-o", str(source.with_suffix(".cubin"))]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the assembler refused the kernel: {done.stderr.strip()}")
    report = done.stderr + done.stdout
    stored, loaded = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report).groups()
    return int(re.search(r"Used (\d+) registers", report)[1]), int(stored) + int(loaded)


def complaints(variant: Variant, compiled: Compiled, arch: int) -> list[str]:
    """What is wrong with it."""
    found = []
    place = (getattr(variant.kernel, "__name__", None), variant.elements, variant.constants.get("HEAD_DIM"))
    if compiled.spills > SPILLS_TOLERATED.get(place, 0):
        found.append(f"spills {compiled.spills} bytes")
    if compiled.shared > SHARED_MEMORY[arch]:
        found.append(f"needs {compiled.shared} bytes of shared memory, sm_{arch} has {SHARED_MEMORY[arch]}")
    if compiled.wgmma and variant.kernel is attention_backward.grad_keys and variant.elements == "fp32":
        found.append("multiplies float32 by wgmma, which was wrong on an H100 (configs.py)")
    if variant.multiplies and not compiled.tensor_cores:
        found.append("does not use the tensor cores")
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tokprune_kernels.gpu.aot", description=__doc__.splitlines()[0])
    parser.add_argument("--arch", type=int, nargs="+", default=[80, 90], choices=SHARED_MEMORY, help="compute capabilities (default 80 90)")
    parser.add_argument("--only", metavar="NAME", help="kernels whose name has this in it")
    args = parser.parse_args(argv)
    chosen = [(arch, one) for arch in args.arch for one in variants(arch) if (args.only or "") in one.kernel.__name__]
    failures = 0
    print(f"{'kernel':20} {'variant':40} {'elements':8} {'arch':5} {'registers':>9} {'spills':>7} {'shared':>7}")
    for arch, variant in chosen:
        compiled = compile_variant(variant, arch)
        wrong = complaints(variant, compiled, arch)
        failures += bool(wrong)
        print(
            f"{variant.kernel.__name__:20} {variant.label:40} {variant.elements:8} sm_{arch} {compiled.registers:9} "
            f"{compiled.spills:7} {compiled.shared:7}{'  <- ' + '; '.join(wrong) if wrong else ''}",
            flush=True,
        )
    print(f"{len(chosen)} compilations, {failures} with something wrong")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
