"""Interpreted runs, one process for each dtype, started together when the first test asks for one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DTYPES = ("float32", "float16")


@pytest.fixture(scope="session")
def interpreted(tmp_path_factory):
    """dtype -> {op: rows}, see interpret.py."""
    pytest.importorskip("triton", reason="needs triton")
    folder = tmp_path_factory.mktemp("interpreted")
    running = {
        dtype: subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.gpu.interpret", "--dtype", dtype, "--out", folder / dtype],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for dtype in DTYPES
    }  # fmt: skip
    results = {}
    for dtype, process in running.items():
        output, _ = process.communicate()
        assert process.returncode == 0, f"{dtype}:\n{output}"
        results[dtype] = json.loads((folder / dtype).read_text())
    return results
