"""Every ISA that this machine can run, through the torch-free module: which one runs, and that it computes the same."""

import os
import subprocess
import sys

import pytest
import torch

core = pytest.importorskip("tokprune_kernels._core", reason="the compiled module is not built")

from tests.ops.samples import GENERATORS  # noqa: E402
from tokprune_kernels import reference  # noqa: E402

ISAS = core.available_isas()
EVERY_ISA = pytest.mark.parametrize("isa", ISAS)
EVERY_DTYPE = pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=("fp32", "bf16"))


def to_numpy(x):
    return x.contiguous().view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.contiguous().numpy()


def from_numpy(x, dtype):
    return torch.from_numpy(x.copy()).view(dtype).double()


def assert_near(actual, expected, tolerance, context):
    if expected.numel():
        error = float((actual - expected).abs().max())
        assert error <= tolerance * float(expected.abs().max()), f"{context}: error {error:.3g}"


@EVERY_ISA
@EVERY_DTYPE
def test_attention(isa, dtype):
    for sample in GENERATORS["attn_importance"](dtype):
        q, k, v, cu_seqlens, longest, scale, *denominators = sample.args
        wide = {name: x.double() for name, x in sample.kwargs.items()}
        expected = reference.attn_importance(q.double(), k.double(), v.double(), cu_seqlens, longest, scale, *denominators, **wide)
        arguments = [*map(to_numpy, (q, k, v, cu_seqlens)), scale, *map(to_numpy, denominators)]
        weights = {name: to_numpy(x) for name, x in sample.kwargs.items()}
        results = [core.attn_importance(*arguments, **weights, isa=isa, threads=threads) for threads in (1, 2)]
        for first, second in zip(*results, strict=True):
            assert first.tobytes() == second.tobytes(), "threads changed the bits"
        context, importance = results[0]
        assert_near(from_numpy(context, dtype), expected[0], sample.tolerance, f"{isa} [{sample.name}] context")
        assert_near(from_numpy(importance, torch.float32), expected[1], 2e-6, f"{isa} [{sample.name}] importance")


@EVERY_ISA
@EVERY_DTYPE
def test_linear(isa, dtype):
    generator = torch.Generator().manual_seed(0)
    for rows, width, out in ((0, 8, 8), (1, 7, 1), (5, 33, 64), (13, 384, 200), (200, 1100, 65)):
        x, weight, bias = (
            torch.randn(*shape, generator=generator).div(shape[-1] ** 0.25).to(dtype) for shape in ((rows, width), (out, width), (out,))
        )
        for activation in range(4):
            packed = reference.pack_weight(weight.double())
            expected = reference.packed_linear(x.double(), packed, bias.double(), out, activation)
            actual = core.linear(*map(to_numpy, (x, weight, bias)), activation, isa=isa, threads=2)
            tolerance = 2e-6 if dtype == torch.float32 else 1.6e-2
            assert_near(from_numpy(actual, dtype), expected, tolerance, f"{isa} {rows}x{width}x{out} {activation}")


@EVERY_ISA
@EVERY_DTYPE
def test_add_layer_norm(isa, dtype):
    for sample in GENERATORS["add_layer_norm"](dtype):
        *tensors, eps = sample.args
        expected = reference.add_layer_norm(*(x.double() for x in tensors), eps)
        actual = core.add_layer_norm(*map(to_numpy, tensors), eps, isa=isa, threads=2)
        assert_near(from_numpy(actual, dtype), expected, sample.tolerance, f"{isa} [{sample.name}]")


def test_decisions_and_compaction_of_the_numpy_module():
    for name in ("keep_threshold", "keep_topk"):
        for sample in GENERATORS[name](torch.float32):
            if sample.kwargs.pop("capacity"):
                continue
            expected = getattr(reference, name)(*sample.args, **sample.kwargs)
            importance, cu_seqlens, value = sample.args
            extra = {key: to_numpy(x) if isinstance(x, torch.Tensor) else x for key, x in sample.kwargs.items()}
            actual = getattr(core, name)(to_numpy(importance), to_numpy(cu_seqlens), value, **extra)
            assert [x.tolist() for x in actual] == [x.tolist() for x in expected], f"{name} [{sample.name}]"
    x, idx = torch.randn(9, 5), torch.tensor([8, 0, 0], dtype=torch.int32)
    assert core.compact(x.numpy(), idx.numpy()).tolist() == x[idx].tolist()


def test_features_and_isas_agree():
    features, compiled = core.cpu_features(), core.compiled_isas()
    assert compiled[-1] == "generic" and ISAS == [isa for isa in compiled if isa in ISAS]
    assert core.active_isa() == os.environ.get("TOKPRUNE_CPU_ISA", ISAS[0])
    if "avx2" in compiled:
        assert ("avx2" in ISAS) == (features["avx2"] and features["fma"])
        assert ("avx512_bf16" in ISAS) <= features["avx512_bf16"]


def run(code, isa):
    environment = os.environ | {"TOKPRUNE_CPU_ISA": isa}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


@EVERY_ISA
def test_forcing_an_isa_is_what_runs(isa):
    done = run("from tokprune_kernels import _core; print(_core.active_isa())", isa)
    assert done.stdout.strip() == isa, done.stderr


def test_forcing_an_unknown_isa_is_an_error_for_every_entry():
    for code in (
        "from tokprune_kernels import _core; _core.active_isa()",
        "import torch, tokprune_kernels.ops as ops; ops.add_layer_norm(*[torch.ones(2, 8)] * 2, *[torch.ones(8)] * 2, 0.1)",
    ):
        done = run(code, "avx1024")
        assert done.returncode != 0 and "ValueError" in done.stderr and "avx1024" in done.stderr, done.stderr


# One process per ISA runs the torch ops' own tests with it forced (the choice is made once per process).
@pytest.mark.parametrize("isa", ISAS[1:])
def test_torch_ops_with_every_other_isa(isa):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/ops", "-k", "float64_reference or companions or accurate"]
    environment = os.environ | {"TOKPRUNE_CPU_ISA": isa}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:]


BAD = {
    "dtype": (lambda q, c: core.attn_importance(q.astype("float64"), q, q, c, 0.1), TypeError, "q"),
    "mixed dtypes": (lambda q, c: core.attn_importance(q, q.astype("uint16"), q, c, 0.1), TypeError, "k"),
    "shape": (lambda q, c: core.attn_importance(q, q[:-1], q, c, 0.1), ValueError, "k"),
    "dims": (lambda q, c: core.attn_importance(q[0], q, q, c, 0.1), ValueError, "q"),
    "head_dim": (lambda q, c: core.attn_importance(*[q[:, :, :12]] * 3, c, 0.1), ValueError, "head_dim"),
    "bounds": (lambda q, c: core.attn_importance(q, q, q, c + 1, 0.1), ValueError, "cu_seqlens"),
    "scale": (lambda q, c: core.attn_importance(q, q, q, c, float("inf")), ValueError, "scale"),
    "threads": (lambda q, c: core.attn_importance(q, q, q, c, 0.1, threads=0), ValueError, "threads"),
    "many threads": (lambda q, c: core.attn_importance(q, q, q, c, 0.1, threads=99999), ValueError, "threads: .* cores .* got 99999"),
    "threads at the peak": (lambda q, c: core.measure_peak(32, threads=99999), ValueError, "threads: .* cores .* got 99999"),
    "key_bias": (lambda q, c: core.attn_importance(q, q, q, c, 0.1, key_bias=q[:5, 0, 0].copy()), ValueError, "key_bias"),
    "row_weights": (lambda q, c: core.attn_importance(q, q, q, c, 0.1, row_weights=-abs(q[:, 0, 0])), ValueError, "row_weights"),
    "isa": (lambda q, c: core.attn_importance(q, q, q, c, 0.1, isa="mmx"), ValueError, "mmx"),
    "threshold": (lambda q, c: core.keep_threshold(q[:, 0, 0], c, float("nan")), ValueError, "threshold"),
    "keep_ratio": (lambda q, c: core.keep_topk(q[:, 0, 0], c, 1.5), ValueError, "keep_ratio"),
    "keep_idx": (lambda q, c: core.compact(q, c + 99), ValueError, "keep_idx"),
    "weight": (lambda q, c: core.linear(q[:, 0], q[:, 0, :8]), ValueError, "weight"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_names_the_argument(case):
    call, error, name = BAD[case]
    q = torch.randn(6, 2, 16).numpy()
    with pytest.raises(error, match=name):
        call(q, torch.tensor([0, 2, 6], dtype=torch.int32).numpy())
