"""Correctness before any timing: every op against the float64 reference on the tests' samples, the same bits again and again,
the same decisions as the CPU's, no host sync where none is promised.
"""

import torch

from tests.gpu.comparing import call, difference, largest_head, widened
from tests.ops.samples import GENERATORS
from tokprune_kernels import reference
from tokprune_kernels.ops.registration import GPU_MODULES

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
REPEATS = 20


def check_ops() -> list[dict]:
    """One row for each op and dtype; raises SystemExit at the first wrong result."""
    rows = []
    for dtype in DTYPES:
        for name in GPU_MODULES:
            worst, op = 0.0, getattr(torch.ops.tokprune, name)
            samples = [sample for sample in GENERATORS[name](dtype) if largest_head(sample) <= 128]
            for sample in samples:
                expected = call(getattr(reference, name), sample, widened(name))
                actual = call(op, sample, torch.Tensor.cuda)
                again = call(op, sample, torch.Tensor.cuda)
                for number, (a, e, b) in enumerate(zip(actual, expected, again, strict=True)):
                    error = difference(a.cpu(), e)
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
