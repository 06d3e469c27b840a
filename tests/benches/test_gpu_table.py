"""What the README says of made-up results of a GPU."""

import csv
import json

import pytest

gpu_table = pytest.importorskip("gpu_table", reason="needs the folder benches/")

MS = {"hf_sdpa": 8.0, "flash_packed": 6.0, "ours_dense_exact": 5.0, "ours_dense_graph": 4.0, "ours_top_exact": 7.0, "ours_top_graph": 2.0}
STAMP = {"gpu": ["made up"], "packages": {"torch": "0", "triton": "0", "transformers": "0"}, "date": "2000-01-01T00:00:00Z"}


def section(folder, workloads):
    rows = [
        {"workload": workload, "contender": name, "ms": ms, "flops_reduction": 3.0 if "top" in name else 1.0}
        for workload, times in workloads.items()
        for name, ms in times.items()
    ]
    with open(folder / "gpu_models.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "gpu_models.machine.json").write_text(json.dumps(STAMP))
    return gpu_table.gpu_section(folder).splitlines()


def test_the_best_dense_engine_is_the_fastest_that_was_measured(tmp_path):
    compiled = MS | {"torch_compile_reduce-overhead": 1.0, "torch_compile_max-autotune": 1.5}
    lines = section(tmp_path, {"1x128": compiled, "8x128": MS})
    assert "made up" in lines[0]
    assert lines[-2] == "| 1x128 | 8 | 1 | 6 | 5 | 4 | 7 | 2 | 3.00x | 4.00x | 0.50x |"
    assert lines[-1] == "| 8x128 | 8 |  | 6 | 5 | 4 | 7 | 2 | 3.00x | 4.00x | 3.00x |"


def test_nothing_measured_is_said(tmp_path):
    assert "Nothing is measured" in gpu_table.gpu_section(tmp_path)
