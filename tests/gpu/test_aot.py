"""The kernels compile for real GPUs: no spills, shared memory within limits, tensor cores where they are meant to multiply."""

import subprocess
import sys

import pytest

from .conftest import ROOT

ARCHITECTURES = ("80", "86", "90")  # sm_89 has the tiles and the limits of sm_86


@pytest.fixture(scope="module")
def compiled():
    """capability -> (exit code, output) of compiling everything, in a process each."""
    pytest.importorskip("triton", reason="needs triton")
    command = [sys.executable, "-W", "ignore", "-m", "tokprune_kernels.gpu.aot", "--arch"]
    running = {
        arch: subprocess.Popen([*command, arch], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for arch in ARCHITECTURES
    }
    return {arch: (process.communicate()[0], process.returncode) for arch, process in running.items()}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_shipped_kernel_compiles(compiled, arch):
    output, code = compiled[arch]
    assert code == 0, output
    assert " compilations, 0 with something wrong" in output


def test_what_is_wrong_is_said():
    pytest.importorskip("triton", reason="needs triton")
    from tokprune_kernels.gpu.aot import Compiled, Variant, complaints
    from tokprune_kernels.gpu.attention_backward import grad_keys

    variant = Variant(None, "", "bf16", {}, multiplies=True)
    assert complaints(variant, Compiled(128, 0, 1024, True), 80) == []
    found = complaints(variant, Compiled(255, 24, 200 * 1024, False), 80)
    assert [text.split()[0] for text in found] == ["spills", "needs", "does"]
    by_wgmma = Compiled(128, 0, 1024, True, wgmma=True)
    assert complaints(Variant(grad_keys, "", "bf16", {}, multiplies=True), by_wgmma, 90) == []
    assert complaints(Variant(grad_keys, "", "fp32", {}, multiplies=True), by_wgmma, 90)[0].startswith("multiplies float32 by wgmma")
