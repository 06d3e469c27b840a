"""Correctness before any timing: every op against the float64 reference on the tests' samples, the same bits again and again,
the same decisions as the CPU's, no host sync where none is promised.
"""

import copy

import torch

from tests.ops.samples import GENERATORS
from tokprune_kernels import reference
from tokprune_kernels.ops.registration import GPU_MODULES

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Decisions compare float32 scores; so their reference gets the same.
FLOAT32_INPUT = ("keep_threshold", "keep_topk", "prune_attention")
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
REPEATS = 20


def check_ops() -> list[dict]:
    """One row for each op and dtype; raises SystemExit at the first wrong result."""
    rows = []
    for dtype in DTYPES:
        for name in GPU_MODULES:
            worst = 0.0
            samples = [sample for sample in GENERATORS[name](dtype) if _head(sample) <= 128]
            for sample in samples:
                wide = torch.float32 if name in FLOAT32_INPUT else torch.float64
                expected = _call(getattr(reference, name), sample, lambda x: x.to(wide) if x.is_floating_point() else x)
                actual = _call(getattr(torch.ops.tokprune, name), sample, lambda x: x.cuda())
                again = _call(getattr(torch.ops.tokprune, name), sample, lambda x: x.cuda())
                for number, (a, e, b) in enumerate(zip(actual, expected, again, strict=True)):
                    error = _difference(a.cpu(), e)
                    worst = max(worst, error if a.is_floating_point() else 0.0)
                    if not error <= TOLERANCES[dtype] and not (name == "prune_attention" and dtype != torch.float32):
                        raise SystemExit(f"{name} [{sample.name}] {dtype} output {number}: wrong, relative error {error:.3g}")
                    if not torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)):
                        raise SystemExit(f"{name} [{sample.name}] {dtype} output {number}: other bits in a second run")
            rows.append({"op": name, "dtype": str(dtype), "samples": len(samples), "worst_error": worst})
    return rows


def check_races() -> None:
    """The same bits from many runs of a large, busy batch."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 513, (128,), generator=generator)
    cu_seqlens = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int().cuda()
    qkv = torch.randn(int(lengths.sum()), 3, 12, 64, generator=generator).to("cuda", torch.bfloat16)
    residual = torch.randn(len(qkv), 768, generator=generator).to("cuda", torch.bfloat16)
    arguments = (*qkv.unbind(1), residual, cu_seqlens, 512, 0.125)
    for rule in ({"threshold": 0.004}, {"keep_ratio": 0.5}):
        first = torch.ops.tokprune.prune_attention(*arguments, **rule)
        for _ in range(REPEATS):
            if not all(map(torch.equal, first, torch.ops.tokprune.prune_attention(*arguments, **rule))):
                raise SystemExit(f"prune_attention {rule}: other bits in another run")


def _call(function, sample, convert):
    args, kwargs = copy.deepcopy((sample.args, sample.kwargs))
    args, kwargs = torch.utils._pytree.tree_map_only(torch.Tensor, convert, (args, kwargs))
    result = function(*args, **kwargs)
    return [args[0]] if result is None else [result] if isinstance(result, torch.Tensor) else list(result)


def _difference(actual, expected) -> float:
    if actual.shape != expected.shape:
        return float("inf")
    if not actual.is_floating_point():
        return 0.0 if torch.equal(actual, expected) else float("inf")
    if not actual.numel():
        return 0.0
    error = (actual.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1e-30)
    return float(error.nan_to_num(float("inf")))


def _head(sample) -> int:
    first = sample.args[0]
    return first.shape[2] if isinstance(first, torch.Tensor) and first.dim() == 3 and len(sample.args) > 4 else 0
