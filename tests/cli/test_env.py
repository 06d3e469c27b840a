"""`tokprune env`: what it says of the machine, and that it works with parts missing."""

import platform
import sys

import pytest
import torch

from tokprune_kernels import __version__
from tokprune_kernels._extension import extension_status


def test_json_has_the_machine_and_the_implementation(json_of):
    result = json_of("env")
    machine, runs = result["machine"], result["implementation"]
    assert machine["packages"]["tokprune-kernels"] == __version__
    assert machine["packages"]["torch"] == torch.__version__
    assert machine["python"] == platform.python_version()
    assert machine["threads"] == torch.get_num_threads()
    assert machine["cpu"]["architecture"] == platform.machine()
    assert platform.node() not in str(result), "results are published: they name no host"
    assert runs["compiled"] == extension_status().loaded
    assert set(runs["ops"].values()) == {"compiled" if runs["compiled"] else "reference"}
    assert {"attn_importance", "prune_attention", "packed_linear"} <= set(runs["ops"])


def test_output_names_what_people_look_for(tokprune):
    code, out, _ = tokprune("env")
    assert code == 0
    for word in ("torch", "transformers", "triton", "threads", "ISA forced", "GPU", "attn_importance"):
        assert word in out


def test_the_gpu_kernels_are_named(json_of, monkeypatch):
    monkeypatch.setattr("tokprune_kernels.cli.implementation.has_triton", lambda: True)
    assert json_of("env")["implementation"]["gpu"] == "Triton, shipped tiles"
    monkeypatch.setenv("TOKPRUNE_GPU_TILES", "my/tiles.json")
    assert json_of("env")["implementation"]["gpu"] == "Triton, tiles of my/tiles.json"
    monkeypatch.setattr("tokprune_kernels.cli.implementation.has_triton", lambda: False)
    assert json_of("env")["implementation"]["gpu"] == "reference: triton is not installed"


def test_a_missing_core_is_said(tokprune, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokprune_kernels._core", None)
    code, out, _ = tokprune("env")
    assert code == 0 and "tokprune_kernels._core is missing" in out


def test_the_isa_in_use_is_the_forced_one(json_of, tokprune, monkeypatch):
    core = pytest.importorskip("tokprune_kernels._core", reason="needs the compiled module _core")
    # `_core` reads the variable at its first use, so what is asked here is that the two reports agree.
    result = json_of("env")["implementation"]["core"]
    assert result["active_isa"] == core.active_isa() and result["active_isa"] in result["available_isas"]
    monkeypatch.setenv("TOKPRUNE_CPU_ISA", result["active_isa"])
    assert f"ISA forced        {result['active_isa']}" in tokprune("env")[1]


def test_missing_packages_are_not_an_error(tokprune, monkeypatch):
    monkeypatch.setattr("tokprune_kernels.cli.machine.installed_version", lambda name: None)
    code, out, _ = tokprune("env")
    assert code == 0 and "not installed" in out


def test_unwritable_json_is_one_line(tokprune, tmp_path):
    code, _, err = tokprune("env", "--json", tmp_path / "nosuch" / "file.json")
    assert code == 2 and "nosuch" in err and err.count("\n") == 1
