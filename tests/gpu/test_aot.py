"""The kernels compile for real GPUs: no spills, shared memory within limits, tensor cores where they are meant to multiply."""

import subprocess
import sys

import pytest

from .conftest import ROOT


@pytest.mark.parametrize("arch", ["80", "90"])
def test_every_shipped_kernel_compiles(arch):
    pytest.importorskip("triton", reason="needs triton")
    command = [sys.executable, "-W", "ignore", "-m", "tokprune_kernels.gpu.aot", "--arch", arch]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
