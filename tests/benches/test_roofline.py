"""The roofline by hand: what it counts, which ceiling bounds, and the table that the script makes."""

import csv
import json
import sys
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("transformers", reason="the benchmarks need transformers")
pytest.importorskip("tokprune_kernels._core", reason="the ceilings are measured by the compiled module")

from tests.benches import synthetic  # noqa: E402
from tokprune_kernels import flops  # noqa: E402

roofline = pytest.importorskip("roofline", reason="needs the folder benches/")

CONFIG = SimpleNamespace(hidden_size=4, intermediate_size=16, num_hidden_layers=3)
# Of one layer: query, key, value, output with bias; up and down with bias; two LayerNorms.
ELEMENTS = 3 * (4 * (4 * 4 + 4) + (4 * 16 + 16) + (16 * 4 + 4) + 2 * (4 + 4))


def kept(*rows):
    return torch.tensor(rows)


def test_bytes_are_the_weights_once_and_the_rows_in_and_out():
    assert roofline.forward_bytes(CONFIG, 0, "fp32") == 4 * ELEMENTS
    assert roofline.forward_bytes(CONFIG, 10, "fp32") == 4 * (ELEMENTS + 2 * 10 * 4)
    assert roofline.forward_bytes(CONFIG, 10, "bf16") * 2 == roofline.forward_bytes(CONFIG, 10, "fp32")


def test_bytes_are_those_of_a_real_encoder():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(hidden_size=32, num_attention_heads=2, intermediate_size=48, num_hidden_layers=2)
    encoder = transformers.BertModel(config).encoder
    assert roofline.forward_bytes(config, 0, "fp32") == sum(p.nbytes for p in encoder.parameters())


def test_linear_bytes():
    assert roofline.linear_bytes(5, 7, 11, "bf16") == 2 * (7 * 11 + 5 * 7 + 5 * 11)


@pytest.mark.parametrize("dtype", ("fp32", "bf16"))
def test_the_slower_ceiling_bounds(dtype):
    lengths = kept([5, 7], [4, 2], [3, 2], [3, 1])
    work = float(flops.encoder_flops(lengths, CONFIG).sum())
    moved = roofline.forward_bytes(CONFIG, 12, dtype)
    peaks = {"fp32": 2e9, "bf16": 3e9}
    by_compute, by_memory = roofline.Roofline(peaks, 1e30), roofline.Roofline(dict.fromkeys(peaks, 1e30), 5e9)
    assert by_compute.forward_seconds(CONFIG, lengths, dtype) == pytest.approx(work / peaks[dtype])
    assert by_memory.forward_seconds(CONFIG, lengths, dtype) == pytest.approx(moved / 5e9)


def test_pruned_work_has_a_lower_roofline():
    ceilings = roofline.Roofline({"fp32": 1e9, "bf16": 1e9}, 1e30)
    dense, pruned = kept(*[[9, 9]] * 4), kept([9, 9], [5, 5], [3, 3], [3, 3])
    assert ceilings.forward_seconds(CONFIG, pruned, "fp32") < ceilings.forward_seconds(CONFIG, dense, "fp32")


def test_measuring_gives_plausible_ceilings(monkeypatch):
    monkeypatch.setattr(roofline, "MEGABYTES", 8)
    monkeypatch.setattr(roofline, "peak_flops", lambda dtype, threads: 1e9 * threads)
    measured = roofline.Roofline.measure(threads=1, rounds=1)
    assert measured.peak_flops == {"fp32": 1e9, "bf16": 1e9}
    assert 1e8 < measured.bytes_per_s < 1e13
    assert list(measured.to_dict()) == ["fp32_gflops", "bf16_gflops", "read_gb_per_s"]


def test_the_script_gives_every_measured_row_its_share(tmp_path, monkeypatch, capsys):
    rows = list(synthetic.model_rows())
    rows[1] |= {"roofline_ms": ""}  # as an engine of another precision has it
    synthetic.write(tmp_path, rows)
    ceilings = roofline.Roofline({"fp32": 2.5e12, "bf16": 5e12}, 1e30)
    monkeypatch.setattr(roofline.Roofline, "measure", classmethod(lambda cls, threads, rounds: ceilings))
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["roofline.py", "--out", str(tmp_path), "--threads", str(threads)])
    roofline.main()
    with open(tmp_path / "roofline.csv", newline="") as file:
        written = {(row["dtype"], row["workload"], row["engine"]): row for row in csv.DictReader(file)}
    assert len(written) == len(rows) - 1
    ours = written["fp32", "1x128", "ours_dense"]  # 200 GFLOP in two batches of 50 ms, at 2.5 TFLOP/s
    assert float(ours["compute_ms"]) == pytest.approx(40)
    assert ours["bound_by"] == "compute" and float(ours["share_of_roofline"]) == pytest.approx(0.8)
    assert json.loads((tmp_path / "roofline.machine.json").read_text())["ceilings"]["fp32_gflops"] == 2500
    assert "read_gb_per_s" in capsys.readouterr().out
