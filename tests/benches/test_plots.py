"""The plots of made-up results, whole and with engines missing."""

import pytest

from tests.benches import synthetic

pytest.importorskip("matplotlib", reason="the plots need matplotlib")
plots = pytest.importorskip("plots", reason="needs the folder benches/")

NAMES = ["latency.png", "pruning.png", "throughput.png"]


def test_plots_are_small_and_the_same_every_time(tmp_path):
    synthetic.write(tmp_path, synthetic.model_rows())
    first = {path.name: path.read_bytes() for path in plots.draw(tmp_path)}
    assert sorted(first) == NAMES
    assert all(content.startswith(b"\x89PNG") and len(content) < 150_000 for content in first.values())
    assert {path.name: path.read_bytes() for path in plots.draw(tmp_path)} == first


def test_missing_engines_are_said(tmp_path, capsys):
    synthetic.write(tmp_path, synthetic.model_rows(skip=("openvino", "ours_top", "ours_ltp", "ours_dense")))
    assert sorted(path.name for path in plots.draw(tmp_path)) == NAMES
    assert "not measured in bf16: OpenVINO" in capsys.readouterr().out


def test_every_engine_that_is_drawn_has_a_look_of_its_own():
    dense = {*plots.PEERS["fp32"], *plots.PEERS["bf16"], "ours_dense"}
    for engines in (dense, set(plots.PRUNED)):
        for looks in (plots.COLOURS, plots.MARKERS):
            assert len({looks[engine] for engine in engines}) == len(engines)
