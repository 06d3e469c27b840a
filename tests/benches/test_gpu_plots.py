"""The plots of made-up results of a GPU, whole, with contenders missing, and where nothing was measured."""

import csv
import json

import pytest

pytest.importorskip("matplotlib", reason="the plots need matplotlib")
gpu_plots = pytest.importorskip("gpu_plots", reason="needs the folder benches/")

STAMP = {"gpu": ["made up"], "packages": {"torch": "0", "triton": "0"}, "date": "2000-01-01T00:00:00Z"}


def write(folder, name, rows):
    with open(folder / f"{name}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / f"{name}.machine.json").write_text(json.dumps(STAMP))


def model_rows():
    return [
        {"workload": workload, "contender": contender, "ms": 1.0 + index, "share_of_peak": 0.1}
        for workload in ("1x16", "256x512")
        for index, contender in enumerate(gpu_plots.COLOURS)
        if (workload, contender) != ("256x512", "torch_compile_max-autotune")
    ]


def test_plots_are_the_same_every_time(tmp_path):
    write(tmp_path, "gpu_models", model_rows())
    kernels = [("attention", "8x128", "ours"), ("attention", "8x128", "flex"), ("linear", "1x2x3", "ours"), ("linear", "1x2x3", "cublas")]
    write(tmp_path, "gpu_kernels", [{"what": what, "shape": shape, "contender": who, "ms": 2.0} for what, shape, who in kernels])
    first = {path.name: path.read_bytes() for path in gpu_plots.draw(tmp_path)}
    assert sorted(first) == ["gpu_kernels.png", "gpu_models.png"]
    assert all(content.startswith(b"\x89PNG") for content in first.values())
    assert {path.name: path.read_bytes() for path in gpu_plots.draw(tmp_path)} == first


def test_what_was_not_measured_is_said(tmp_path, capsys):
    write(tmp_path, "gpu_models", model_rows())
    assert [path.name for path in gpu_plots.draw(tmp_path)] == ["gpu_models.png"]
    assert "not measured: gpu_kernels.csv" in capsys.readouterr().out
