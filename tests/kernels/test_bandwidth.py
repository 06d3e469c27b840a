"""The memory ceiling of the roofline: a plausible rate, from cache a higher one, and errors that name the argument."""

import time

import pytest

core = pytest.importorskip("tokprune_kernels._core", reason="the compiled module is not built")


def rate(megabytes, threads=1):
    """Best of a few short runs: others use this machine too, and only ever make it slower."""
    return max(core.measure_bandwidth(threads=threads, megabytes=megabytes, seconds=0.02) for _ in range(5))


@pytest.mark.parametrize("threads", (1, 2, 3))
def test_bandwidth_is_what_a_machine_can_have(threads):
    assert 1e8 < rate(64, threads) < 1e13


def test_a_buffer_in_cache_is_read_faster_than_one_in_memory():
    """Were nothing read, or the same lines again and again, both would be equally fast."""
    assert rate(1) > 1.1 * rate(512)


def test_a_run_takes_the_time_it_is_given():
    start = time.perf_counter()
    core.measure_bandwidth(megabytes=1, seconds=0.2)
    assert time.perf_counter() - start >= 0.2


@pytest.mark.parametrize(
    ("arguments", "name"),
    (
        ({"threads": 0}, "threads"),
        ({"threads": 99999}, "threads: .* cores .* got 99999"),
        ({"megabytes": 0}, "megabytes"),
        ({"megabytes": 1, "threads": 2}, "megabytes"),
        ({"seconds": 0.0}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": 11.0}, "seconds"),
    ),
)
def test_bad_input_names_the_argument(arguments, name):
    with pytest.raises(ValueError, match=name):
        core.measure_bandwidth(**arguments)
