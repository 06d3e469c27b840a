"""Activations of the GPU's linear layers, in triton's interpreter: near zero, in their tails, and of what is no number."""

import json
import subprocess
import sys

import pytest

from .conftest import ROOT

# Of 12: half a unit in the last place, and what GELU's polynomial for 16 bits may be off by.
ERRORS = {"float32": 1e-6, "float16": 0.0042}


@pytest.fixture(scope="module")
def rows():
    pytest.importorskip("triton", reason="needs triton")
    command = [sys.executable, "-W", "ignore", "-m", "tests.gpu.interpret_activations"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_they_are_accurate(rows):
    assert len(rows) == 8
    assert not [row for row in rows if not row[2] <= ERRORS[row[0]]]


def test_their_tails_are_exact(rows):
    assert not [row for row in rows if row[3]]


def test_nan_stays(rows):
    assert not [row for row in rows if row[4]]
