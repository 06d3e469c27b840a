"""What the README says about made-up results, whole and with engines or workloads missing."""

import pytest

from tests.benches import synthetic

readme_table = pytest.importorskip("readme_table", reason="needs the folder benches/")


def section(folder, rows):
    return readme_table.results_section(synthetic.write(folder, rows))


def cells_of(text, *beginning):
    """The cells after `beginning` of the first table row that begins so."""
    start = "| " + " | ".join(beginning) + " | "
    line = next(line for line in text.splitlines() if line.startswith(start))
    return line.removeprefix(start).removesuffix(" |").split(" | ")


def test_dense_table_names_the_fastest_peer(tmp_path):
    text = section(tmp_path, synthetic.model_rows())
    assert cells_of(text, "fp32", "1x128") == ["60 (OpenVINO)", "50", "1.20x", "67%", "80%"]
    assert cells_of(text, "bf16", "1x128") == ["30 (OpenVINO)", "25", "1.20x", "67%", "80%"]


def test_real_text_table_says_what_of_the_saved_flops_is_time(tmp_path):
    text = section(tmp_path, synthetic.model_rows())
    expected = ["100", "60 (OpenVINO)", "50", "1.20x", "20, 3.00x, 83%", "18, 3.00x, 93%", "3.00x"]
    assert cells_of(text, "fp32", "sst2 batches of 32") == expected
    assert cells_of(text, "fp32", "sst2 batches of 32, similar lengths") == expected


def test_operating_point_has_a_table_of_its_own(tmp_path):
    text = section(tmp_path, synthetic.model_rows())
    assert cells_of(text, "fp32", "sst2 padded to 64") == ["100", "60 (OpenVINO)", "10", "8.00x", "10.00x", "6.00x"]
    assert text.count("sst2 padded to 64") == 2, "once in each precision, not among the real texts as they come"


def test_every_row_of_a_table_has_a_cell_for_every_header(tmp_path):
    text = section(tmp_path, synthetic.model_rows(skip=("openvino", "ours_top", "hf_sdpa")))
    for block in text.split("\n\n"):
        assert len({line.count("|") for line in block.splitlines() if line.startswith("|")}) <= 1, block


def test_a_missing_peer_is_named_and_the_next_best_takes_its_place(tmp_path):
    text = section(tmp_path, synthetic.model_rows(skip=("openvino", "onnxruntime")))
    assert "Not measured in fp32: ONNX Runtime, BERT fusions; OpenVINO." in text
    assert "Not measured in bf16: OpenVINO." in text
    assert cells_of(text, "fp32", "1x128")[0] == "80 (torch.compile)"


def test_a_lower_precision_is_never_the_best_peer(tmp_path):
    assert synthetic.FP32[synthetic.NO_PEER] < synthetic.FP32["openvino"]
    assert "int8" not in section(tmp_path, synthetic.model_rows())


def test_no_peer_at_all_is_said(tmp_path):
    text = section(tmp_path, synthetic.model_rows(skip=[engine for engine in synthetic.FP32 if engine != "ours_dense"]))
    assert cells_of(text, "fp32", "1x128") == ["none measured", "50", "", "", "80%"]


def test_a_row_without_a_time_counts_as_not_measured(tmp_path):
    rows = [row | {"ms_per_batch": ""} if row["engine"] == "openvino" else row for row in synthetic.model_rows()]
    assert "Not measured in bf16: OpenVINO." in section(tmp_path, rows)


def test_ratios_that_a_partial_run_left_empty_stay_empty(tmp_path):
    ratios = dict.fromkeys(("vs_huggingface", "vs_best_peer", "vs_ours_dense"), "")
    text = section(tmp_path, [row | ratios for row in synthetic.model_rows()])
    assert cells_of(text, "fp32", "1x128") == ["60 (OpenVINO)", "50", "", "67%", "80%"]
    assert cells_of(text, "fp32", "sst2 batches of 32")[4] == "20, 3.00x, not measured"


def test_tables_without_rows_say_so(tmp_path):
    rows = [row for row in synthetic.model_rows() if row["workload"] in synthetic.FIXED]
    assert section(tmp_path, rows).count("\n\nNot measured.\n\n") == 3


def test_plots_are_linked_where_they_exist(tmp_path):
    assert "plots/" not in section(tmp_path, synthetic.model_rows())
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "latency.png").touch()
    text = section(tmp_path, synthetic.model_rows())
    assert "(benches/results/plots/latency.png)" in text and "throughput.png" not in text


def test_peers_and_names_are_those_of_the_engines():
    pytest.importorskip("transformers", reason="the engines need transformers")
    import engines
    from presentation import LABELS, PEERS
    from engines.engine import PEER

    assert set(LABELS) == set(engines.NAMES)
    for dtype, names in PEERS.items():
        assert names == tuple(e.name for e in engines.all_engines() if e.kind == PEER and dtype in e.dtypes)


def test_the_exact_last_layer_has_a_table_of_its_own(tmp_path):
    text = section(tmp_path, synthetic.model_rows())
    assert "| fp32 | sst2 batches of 32 | 46 | 1.09x | 1.08x |" in text
    assert "| bf16 | 8x128 | 23 | 1.09x | 1.08x |" in text


def test_first_calls(tmp_path):
    row = "| fp32 | OpenVINO | 10 | 1.20x | 3.00x |"
    assert row in section(tmp_path, synthetic.model_rows())
    (tmp_path / "first_call.csv").unlink()
    assert row not in readme_table.results_section(tmp_path)


def test_training_steps_and_their_memory(tmp_path):
    text = section(tmp_path, synthetic.model_rows())
    assert "| fp32 | sst2 batches of 32 | 100 | 50, 2.00x | 40, 2.50x |  |  |  |" in text
    assert "| fp32 | 20news 8x512 | 100 | 50, 2.00x | 40, 2.50x | 1000 | 400, 40% | 350, 35% |" in text
    (tmp_path / "training_memory.csv").unlink()
    assert "50, 2.00x" not in readme_table.results_section(tmp_path), "half a table would look like a whole one"


def test_the_table_of_encode(tmp_path):
    folder = synthetic.write(tmp_path, synthetic.model_rows())
    assert readme_table.encode_table(folder) == ["Not measured."]
    (folder / "sentence_transformers.csv").write_text(
        "task,texts,plain_ms,dense_ms,frozen_ms,pruned_ms,dense_vs_plain,frozen_vs_plain,pruned_vs_plain,cosine_pruned_mean,cosine_pruned_least\n"
        "20news,128,1000,500,400,200,2,2.5,5,0.9351,0.8\n"
    )
    row = readme_table.encode_table(folder)[2]
    assert row == "| 20news, 128 texts | 1000 | 500, 2.00x | 400, 2.50x | 200, 5.00x | 0.935, 0.800 |"
