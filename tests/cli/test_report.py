"""What the reports of several commands share."""

import pytest

from tokprune_kernels.cli.measurement import Measurement
from tokprune_kernels.cli.report import speed_table, timing_note
from tokprune_kernels.cli.timing import Timing


@pytest.fixture
def measured():
    timings = {"padded": Timing((0.2, 0.4)), "packed": Timing((0.1, 0.1)), "pruned": Timing((0.05, 0.05))}
    return Measurement([], {"padded": 8e9, "packed": 4e9, "pruned": 2e9, "padded to 512": 16e9}, timings)


def test_factors(measured):
    assert measured.factors["pruned"] == pytest.approx(
        {"time_vs_padded": 6.0, "time_vs_packed": 2.0, "flops_vs_padded": 4.0, "flops_vs_packed": 2.0}
    )
    assert set(measured.to_dict()["factors"]) == {"padded", "packed", "pruned"}


def test_speed_table(measured):
    last = speed_table({"padded": "dense", "pruned": "ours"}, measured, texts=3, times="x").split("\n")[-1]
    assert last.split() == ["ours", "50.0", "50.0", "60.0", "6.00x", "2.00", "4.00x"]


@pytest.mark.parametrize("load, busy", [(None, False), (0.3, False), (3.2, True)])
def test_a_busy_machine_is_said(measured, load, busy):
    note = timing_note(measured, {"threads": 2, "load": load, "cpu": {"cores": 2}})
    assert note.startswith("2 interleaved rounds, 2 threads") and ("busy" in note) == busy
