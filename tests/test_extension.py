"""Loading the compiled kernels: what happens when they are missing, broken, stale, or not wanted."""

import os
import subprocess
import sys
import warnings

import pytest

from tokprune_kernels import _extension
from tokprune_kernels._extension import BACKEND_VARIABLE, extension_status


@pytest.fixture
def loader(monkeypatch, tmp_path):
    """A fresh loader that looks for a library which is not there; returns the path it looks at."""
    library = tmp_path / "_torch_ops.so"
    monkeypatch.setattr(_extension, "LIBRARY", library)
    monkeypatch.delenv(BACKEND_VARIABLE, raising=False)
    extension_status.cache_clear()
    yield library
    extension_status.cache_clear()


def test_missing_warns_once_and_says_what_to_do(loader):
    with pytest.warns(RuntimeWarning) as caught:
        first, second = extension_status(), extension_status()
    assert len(caught) == 1
    message = str(caught[0].message)
    assert str(loader) in message and "reference runs instead" in message and "pip install" in message
    assert first == second
    assert not first.loaded and first.path == str(loader) and "reference" in first.detail


def test_missing_though_asked_for(loader, monkeypatch):
    monkeypatch.setenv(BACKEND_VARIABLE, "extension")
    with pytest.raises(ImportError, match="missing.*TOKPRUNE_BACKEND=extension"):
        extension_status()


def test_broken_is_never_silent(loader):
    loader.write_bytes(b"not a library")
    with pytest.raises(ImportError, match="cannot be loaded.*pip install"):
        extension_status()


def test_reference_on_request_is_silent_even_beside_a_broken_library(loader, monkeypatch):
    loader.write_bytes(b"not a library")
    monkeypatch.setenv(BACKEND_VARIABLE, "reference")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not extension_status().loaded


def test_unknown_backend(loader, monkeypatch):
    monkeypatch.setenv(BACKEND_VARIABLE, "cuda")
    with pytest.raises(ValueError, match="TOKPRUNE_BACKEND must be one of auto, extension, reference, got 'cuda'"):
        extension_status()


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


def test_warning_comes_with_the_ops_not_with_the_package():
    code = (
        "from pathlib import Path; import tokprune_kernels as tk; from tokprune_kernels import _extension\n"
        "_extension.LIBRARY = Path('/nowhere/_torch_ops.so'); print('imported', flush=True)\n"
        "import torch; print(tk.ops.pack_index(torch.ones(1, 2))[0].tolist()); tk.ops.pack_index(torch.ones(1, 2))"
    )
    done = run_python(code, **{BACKEND_VARIABLE: "auto"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["imported", "[0, 1]"]
    assert done.stderr.count("reference runs instead") == 1


def test_stale_library_is_refused():
    """One that lacks an op: here none was loaded, but the loader is made to say so."""
    code = (
        "from tokprune_kernels import _extension as e\n"
        "e.extension_status = lambda: e.ExtensionStatus(True, 'old.so', '')\n"
        "import tokprune_kernels.ops"
    )
    done = run_python(code)
    assert done.returncode != 0
    assert "ImportError" in done.stderr and "old.so lack attn_importance, attn_importance_backward, varlen_attention" in done.stderr
