"""Interleaved timing."""

import pytest

from tokprune_kernels.cli import timing
from tokprune_kernels.cli.timing import Timing, interleave


def test_rounds_are_interleaved_in_changing_order():
    calls = []
    contenders = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    timings = interleave(contenders, repeats=20, warmup=1)
    rounds = ["".join(calls[start : start + 3]) for start in range(0, len(calls), 3)]
    assert rounds[0] == "abc" and all(sorted(one) == ["a", "b", "c"] for one in rounds)
    followers = {pair for one in rounds for pair in zip(one, one[1:])}
    assert len(followers) == 6, "every contender must come right after every other one"
    assert list(timings) == ["a", "b", "c"] and all(len(timing.samples_s) == 20 for timing in timings.values())


def test_median_and_p95():
    samples = Timing(tuple(float(value) for value in range(100, 0, -1)))
    assert samples.median_s == 50.5 and samples.p95_s == 95.0
    assert Timing((3.0, 1.0)).p95_s == 3.0
    assert Timing((0.5,)).to_dict() == {"median_ms": 500.0, "p95_ms": 500.0, "samples_ms": [500.0]}


def test_budget_stops_after_three_rounds():
    progress = []
    timings = interleave({"a": lambda: None}, 50, budget_s=0.0, progress=lambda *done: progress.append(done))
    assert len(timings["a"].samples_s) == 3 and progress == [(1, 50), (2, 50), (3, 50)]


def test_budget_leaves_at_least_so_many_rounds():
    assert len(interleave({"a": lambda: None}, 50, budget_s=0.0, at_least=7)["a"].samples_s) == 7


def test_a_pause_before_each_timed_call_is_not_timed(monkeypatch):
    events = []
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: events.append(seconds))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(len(events)))  # a clock that a pause moves on
    timings = interleave({"a": lambda: events.append("a"), "b": lambda: events.append("b")}, 2, settle_s=0.25)
    assert events[:2] == ["a", "b"], "no pause in the warm-up"
    assert events[2::2] == [0.25] * 4 and sorted(events[3::2]) == ["a", "a", "b", "b"]
    assert timings["a"].samples_s == timings["b"].samples_s == (1.0, 1.0), "the call, without the pause"


@pytest.mark.parametrize("contenders, repeats", [({}, 1), ({"a": print}, 0)])
def test_nothing_to_time(contenders, repeats):
    with pytest.raises(ValueError, match="at least one"):
        interleave(contenders, repeats)
