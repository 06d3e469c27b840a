"""The rows of the model benchmark: every column from known timings, and what a partial run leaves of earlier rows."""

import csv

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="the engines run transformers' BertModel")

import engines  # noqa: E402
from model_rows import COLUMNS, Measured, merged, read, rows_of  # noqa: E402
from transformers import BertConfig  # noqa: E402
from workloads import Workload, batch_of  # noqa: E402

import tokprune_kernels as tk  # noqa: E402
from tokprune_kernels.cli.timing import Timing  # noqa: E402

LENGTHS = ([10, 30], [20, 20])
LAYERS = 12


class OneSecond:
    """A roofline that allows one second for each batch."""

    def forward_seconds(self, config, kept_lengths, dtype, exact_last_layer):
        assert kept_lengths.shape == (LAYERS + 1, 2) and dtype == "fp32"
        return 1.0


def measured(name, seconds, share=1.0):
    kept = [torch.tensor(lengths).mul(share).long().expand(LAYERS + 1, -1) for lengths in LENGTHS]
    return Measured(engines.find(name), Timing((seconds,) * 4 + (9.0,)), kept, BertConfig())


def rows(*contenders):
    generator = torch.Generator().manual_seed(0)
    workload = Workload("texts", [batch_of(lengths, generator) for lengths in LENGTHS])
    return {row["engine"]: row for row in rows_of("fp32", workload, contenders, OneSecond())}


ALL = (("hf_sdpa", 6.0), ("openvino", 4.0), ("onnxruntime_int8", 1.0), ("ours_dense", 2.0), ("ours_top", 1.0, 0.5))


def test_every_column():
    found = rows(*(measured(*one) for one in ALL))
    lengths = torch.tensor([10, 30, 20, 20])
    dense = float(tk.flops.dense_flops(lengths, BertConfig()).sum())
    padded = float(tk.flops.dense_flops(torch.tensor([30, 30, 20, 20]), BertConfig()).sum())
    halved = float(tk.flops.dense_flops(lengths // 2, BertConfig()).sum())
    assert tuple(found["ours_top"]) == COLUMNS
    assert found["ours_top"] == {
        "dtype": "fp32", "workload": "texts", "engine": "ours_top", "tokens": 80, "padded_tokens": 100, "batches": 2,
        "gflop": pytest.approx(halved / 1e9), "ms_per_batch": 500.0, "p95_ms_per_batch": 4500.0, "rounds": 5,
        "live_gflops": pytest.approx(dense / 1e9), "vs_huggingface": 6.0, "vs_best_peer": 4.0, "vs_ours_dense": 2.0,
        "flops_vs_dense": pytest.approx(dense / halved), "flops_vs_padded": pytest.approx(padded / halved),
        "roofline_ms": 1000.0, "share_of_roofline": 2.0,
    }  # fmt: skip
    assert found["ours_dense"]["flops_vs_padded"] == pytest.approx(padded / dense)
    assert found["openvino"]["flops_vs_padded"] == 1.0, "it computes the padding"
    assert found["openvino"]["gflop"] == found["ours_dense"]["gflop"] == pytest.approx(dense / 1e9)


def test_who_is_the_best_peer():
    found = rows(*(measured(*one) for one in ALL))
    assert found["openvino"]["vs_best_peer"] == 1.0 and found["hf_sdpa"]["vs_best_peer"] == pytest.approx(4 / 6)
    assert found["onnxruntime_int8"]["vs_best_peer"] == 4.0, "compared, but no peer at this precision"
    assert found["onnxruntime_int8"]["roofline_ms"] is None and found["onnxruntime_int8"]["share_of_roofline"] is None


def test_no_ratio_to_an_engine_of_another_run():
    (row,) = rows(measured("ours_dense", 2.0)).values()
    assert row["vs_huggingface"] is None and row["vs_best_peer"] is None and row["vs_ours_dense"] == 1.0


def row(dtype, workload, engine, ms):
    return {"dtype": dtype, "workload": workload, "engine": engine, "ms": ms}


def test_a_partial_run_replaces_only_its_own_rows():
    order = (("fp32", "bf16"), ("1x16", "1x128"), ("hf_sdpa", "ours_dense"))
    old = [
        row("bf16", "1x16", "hf_sdpa", 1),
        row("fp32", "1x128", "ours_dense", 2),
        row("fp32", "1x16", "ours_dense", 3),
    ]
    new = [row("fp32", "1x16", "ours_dense", 4), row("fp32", "1x16", "hf_sdpa", 5)]
    assert merged(old, new, order) == [new[1], new[0], old[1], old[0]]
    unknown = [row("fp32", "1x16", "gone", 1), row("fp32", "7x7", "hf_sdpa", 1)]
    assert merged(unknown, new, order) == [new[1], new[0]]
    assert merged([], [], order) == []


def test_rows_of_another_form_are_not_kept(tmp_path, capsys):
    path = tmp_path / "model.csv"
    assert read(path) == []
    path.write_text("dtype,workload,model\nfp32,1x16,old\n")
    assert read(path) == [] and "other columns" in capsys.readouterr().out
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerow(dict.fromkeys(COLUMNS, "1"))
    assert read(path) == [dict.fromkeys(COLUMNS, "1")]
