"""Interpreted runs, in a few processes that are started together when the first test asks for one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tokprune_kernels.ops.registration import GPU_MODULES

ROOT = Path(__file__).parents[2]
DTYPES = ("float32", "float16")
# What a process runs; in float32 whole encoders and models take as long as all the ops.
PARTS = [("float32", (*GPU_MODULES,)), ("float32", ("encoder", "models")), ("float16", (*GPU_MODULES, "encoder"))]


@pytest.fixture(scope="session")
def interpreted(tmp_path_factory):
    """dtype -> {op: rows}, see interpret.py."""
    pytest.importorskip("triton", reason="needs triton")
    folder = tmp_path_factory.mktemp("interpreted")
    command = [sys.executable, "-W", "ignore", "-m", "tests.gpu.interpret"]
    running = [
        subprocess.Popen(
            [*command, "--dtype", dtype, "--only", *names, "--out", folder / str(number)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for number, (dtype, names) in enumerate(PARTS)
    ]  # fmt: skip
    results = {dtype: {} for dtype in DTYPES}
    for number, ((dtype, _), process) in enumerate(zip(PARTS, running, strict=True)):
        output, _ = process.communicate()
        assert process.returncode == 0, f"{dtype}:\n{output}"
        results[dtype] |= json.loads((folder / str(number)).read_text())
    return results
