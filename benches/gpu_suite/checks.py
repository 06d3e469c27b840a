"""Correctness before any timing: every op against the float64 reference on the tests' samples, the same bits again and again.

Nearly all of the time goes into compiling: the samples have hundreds of combinations of head sizes and options. So processes share
the work out; each op that takes long is cut into several parts.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace

import torch

from tests.gpu.comparing import TOLERANCES, call, comparable, difference, largest_head, widened
from tests.ops.samples import GENERATORS
from tokprune_kernels import reference
from tokprune_kernels.ops.registration import GPU_MODULES

from .timing import first_line

PARTS = {"attn_importance": 4, "attn_importance_backward": 4, "prune_attention": 4, "varlen_attention": 2}
PROCESSES = 12
REPEATS = 20


def check_ops() -> list[dict]:
    """One row for each op and dtype; its "wrong" names every result that is not right, or is empty."""
    cases = [(name, dtype, part) for name in GPU_MODULES for dtype in TOLERANCES for part in range(PARTS.get(name, 1))]
    cases.sort(key=lambda case: case[0] not in PARTS)  # what takes long first
    rows: dict[tuple, dict] = {}
    with ProcessPoolExecutor(min(PROCESSES, os.cpu_count() or 1), get_context("spawn")) as pool:
        for (name, dtype, _), (samples, worst, wrong) in zip(cases, pool.map(check_part, *zip(*cases, strict=True)), strict=True):
            row = rows.setdefault((name, dtype), _row(name, dtype))
            row["samples"] += samples
            row["worst_error"] = max(row["worst_error"], worst)
            row["wrong"] = "; ".join([*filter(None, [row["wrong"]]), *wrong])
    return list(rows.values())


def check_part(name: str, dtype: torch.dtype, part: int) -> tuple[int, float, list[str]]:
    """(samples, largest relative error, what is wrong) of one part of an op's samples."""
    worst, wrong, op = 0.0, [], getattr(torch.ops.tokprune, name)
    samples = [sample for sample in GENERATORS[name](dtype) if largest_head(sample) <= 128][part :: PARTS.get(name, 1)]
    for sample in samples:
        try:
            actual, again = (call(op, sample, torch.Tensor.cuda) for _ in range(2))
            expected = call(getattr(reference, name), sample, widened(name))
        except Exception as error:  # the other results are worth having
            wrong.append(f"[{sample.name}] {type(error).__name__}: {first_line(error)}")
            continue
        for number, (a, e, b) in enumerate(zip(actual, expected, again, strict=True)):
            error = difference(a.cpu(), e) if comparable(name, dtype) else 0.0
            worst = max(worst, error if a.is_floating_point() else 0.0)
            if not error <= TOLERANCES[dtype]:
                wrong.append(f"[{sample.name}] output {number}: relative error {error:.3g}")
            if not torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)):
                wrong.append(f"[{sample.name}] output {number}: other bits in a second run")
    return len(samples), worst, wrong


def check_long() -> list[dict]:
    """Texts of up to 4096 tokens, forward, backward and top-k, against the float64 reference; rows as those of `check_ops`."""
    generator = torch.Generator().manual_seed(0)
    cu_seqlens = torch.tensor([0, 4096, 4097, 5600], dtype=torch.int32)
    total, rows = int(cu_seqlens[-1]), []
    for dtype in TOLERANCES:
        q, k, v, gradient = torch.randn(4, total, 2, 64, generator=generator).to(dtype)
        of_importance, scores = torch.randn(total, generator=generator), torch.rand(total, generator=generator)
        calls = {
            "attn_importance": (q, k, v, cu_seqlens, 4096, 0.125),
            "attn_importance_backward": (gradient, of_importance, q, k, v, cu_seqlens, 4096, 0.125),
            "keep_topk": (scores, cu_seqlens, 0.3),
        }
        for name, arguments in calls.items():
            sample, wide = SimpleNamespace(args=arguments, kwargs={}), widened(name)
            pairs = zip(call(getattr(torch.ops.tokprune, name), sample, torch.Tensor.cuda), call(getattr(reference, name), sample, wide), strict=True)
            worst = max(difference(a.cpu(), e) for a, e in pairs)
            wrong = "" if worst <= TOLERANCES[dtype] else f"relative error {worst:.3g}"
            rows.append(_row(f"{name}, 4096 tokens", dtype, 1, worst, wrong))
    return rows


def check_races() -> list[dict]:
    """Whether many runs of a large, busy batch give the same bits, forward and backward; rows as those of `check_ops`."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 513, (128,), generator=generator)
    cu_seqlens = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int().cuda()
    rows = []
    for dtype in TOLERANCES:
        qkv = torch.randn(int(lengths.sum()), 3, 12, 64, generator=generator).to("cuda", dtype)
        residual = torch.randn(len(qkv), 768, generator=generator).to("cuda", dtype)
        gradients = torch.randn_like(qkv[:, 0]), torch.randn(len(qkv), device="cuda")
        forward, tokprune = (*qkv.unbind(1), residual, cu_seqlens, 512, 0.125), torch.ops.tokprune
        calls = {
            "prune_attention by threshold": lambda: tokprune.prune_attention(*forward, threshold=0.004),
            "prune_attention by ratio": lambda: tokprune.prune_attention(*forward, keep_ratio=0.5),
            "attn_importance_backward": lambda: tokprune.attn_importance_backward(*gradients, *qkv.unbind(1), cu_seqlens, 512, 0.125),
        }
        for name, run in calls.items():
            first = run()
            others = sum(not all(map(torch.equal, first, run())) for _ in range(REPEATS))
            wrong = f"other bits in {others} of {REPEATS} runs" if others else ""
            rows.append(_row(f"{name}, again and again", dtype, REPEATS, wrong=wrong))
    return rows


def _row(op: str, dtype: torch.dtype, samples: int = 0, worst_error: float = 0.0, wrong: str = "") -> dict:
    return {"op": op, "dtype": str(dtype), "samples": samples, "worst_error": worst_error, "wrong": wrong}
