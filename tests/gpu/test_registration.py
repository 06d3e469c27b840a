"""What is registered for CUDA: the Triton launchers, imported when they are called, behind the same checks and fake kernels."""

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import tokprune_kernels.ops  # noqa: F401  (defines torch.ops.tokprune)
from tests.ops.samples import GENERATORS
from tokprune_kernels import reference
from tokprune_kernels.ops import schemas
from tokprune_kernels.ops.registration import GPU_MODULES

from .conftest import ROOT

# Only the CPU packs weights.
CPU_ONLY = {"pack_weight", "packed_linear", "encoder", "padded_encoder"}


def test_every_op_has_a_kernel_for_cuda():
    assert set(GPU_MODULES) == set(schemas.NAMES) - CPU_ONLY
    for name in schemas.NAMES:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"tokprune::{name}", "CUDA")


@pytest.mark.parametrize("name", GPU_MODULES)
def test_fake_tensors_on_a_gpu(name):
    """Tracing for a GPU gives what running gives: as many outputs, their dtypes, sizes where they do not depend on data."""
    for sample in list(GENERATORS[name](torch.float32))[:3]:
        expected = getattr(reference, name)(*sample.args, **sample.kwargs)
        expected = [expected] if isinstance(expected, torch.Tensor) else list(expected or ())
        with FakeTensorMode(shape_env=ShapeEnv()):
            on_gpu = torch.utils._pytree.tree_map_only(
                torch.Tensor, lambda x: torch.empty(x.shape, dtype=x.dtype, device="cuda"), (sample.args, sample.kwargs)
            )
            actual = getattr(torch.ops.tokprune, name)(*on_gpu[0], **on_gpu[1])
            actual = [actual] if isinstance(actual, torch.Tensor) else list(actual or ())
            assert len(actual) == len(expected)
            for fake, real in zip(actual, expected, strict=True):
                assert (fake.device.type, fake.dtype, fake.dim()) == ("cuda", real.dtype, real.dim())
                for size, wanted in zip(fake.shape, real.shape, strict=True):
                    assert isinstance(size, torch.SymInt) or size == wanted


@pytest.mark.parametrize("name", GPU_MODULES)
def test_opcheck_on_a_gpu(name):
    """Schema, autograd registration, fake kernels, AOT dispatch: by the key of CUDA, on tensors without memory."""
    op = getattr(torch.ops.tokprune, name).default
    differentiable = torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "Autograd")
    samples = list(GENERATORS[name](torch.float32))[:3]
    with FakeTensorMode(shape_env=ShapeEnv()):
        for sample in samples:
            args, kwargs = torch.utils._pytree.tree_map_only(
                torch.Tensor,
                lambda x: torch.empty(x.shape, dtype=x.dtype, device="cuda", requires_grad=differentiable and x.is_floating_point()),
                (sample.args, sample.kwargs),
            )
            torch.library.opcheck(op, args, kwargs)


def test_dtypes_that_the_gpu_kernels_take():
    pytest.importorskip("triton", reason="needs triton")
    with FakeTensorMode(), pytest.raises(TypeError, match="q must be torch.float32 or torch.bfloat16 or torch.float16"):
        q = torch.empty(4, 2, 32, device="cuda", dtype=torch.float64)
        torch.ops.tokprune.varlen_attention(q, q, q, torch.empty(2, device="cuda", dtype=torch.int32), 4, 0.2)


def test_the_gpu_kernels_are_not_imported_for_the_cpu():
    code = "import sys, tokprune_kernels.ops, tokprune_kernels.models; assert not any('tokprune_kernels.gpu' in m for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_heads_that_are_too_wide():
    pytest.importorskip("triton", reason="needs triton")
    from tokprune_kernels.gpu.configs import padded_head

    assert [padded_head(size) for size in (8, 16, 24, 64, 96, 128)] == [16, 16, 32, 64, 128, 128]
    with pytest.raises(ValueError, match="heads of up to 128 channels, got 136"):
        padded_head(136)
