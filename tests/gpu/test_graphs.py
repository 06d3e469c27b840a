"""Which shapes get a graph: the bookkeeping, with recording and replaying left to no GPU. What a GPU does is in test_on_gpu.py."""

import threading
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch

from tokprune_kernels.gpu.graphs import CALLS_COUNTED, RECORDED_AT, RECORDED_AT_WHEN_FULL, GraphCache


@dataclass(frozen=True)
class OnGpu:
    """As much of a tensor on a GPU as a cache looks at."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.bfloat16
    device: str = "cuda:0"
    is_cuda: bool = True


class Cache(GraphCache):
    """Notes what it records."""

    def __init__(self, limit):
        super().__init__(limit)
        self.recorded = []

    def _record(self, function, inputs):
        self.recorded.append(inputs[0].shape)
        return inputs[0].shape

    def _replay(self, recorded, inputs):
        return "replayed"


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())

    def run(cache, rows, key="model"):
        return cache.run(key, lambda x: "called", [OnGpu((rows, 8))])

    return run


def test_what_comes_again_is_recorded(run):
    cache = Cache(limit=2)
    results = [run(cache, 4) for _ in range(RECORDED_AT + 2)]
    assert results == ["called"] * (RECORDED_AT - 1) + ["replayed"] * 3 and cache.recorded == [(4, 8)]
    assert run(cache, 4, key="another model") == "called"
    cache.clear()
    assert len(cache) == 0 and run(cache, 4) == "called"


def test_a_full_cache_gives_a_place_only_to_what_comes_often(run):
    cache = Cache(limit=2)
    for _ in range(RECORDED_AT):
        run(cache, 1), run(cache, 2)
    for _ in range(RECORDED_AT_WHEN_FULL - 1):
        assert run(cache, 3) == "called"
    run(cache, 1)  # 2 is the one that was not used for longest
    assert run(cache, 3) == "replayed" and len(cache) == 2
    assert run(cache, 1) == "replayed" and run(cache, 2) == "called"


def test_counts_do_not_pile_up(run):
    cache = Cache(limit=2)
    for rows in range(2 * CALLS_COUNTED):
        run(cache, rows)
    assert len(cache._calls) <= CALLS_COUNTED + 1 and not cache.recorded


def test_threads_take_turns(run, monkeypatch):
    """Nobody writes a graph's inputs between another's and its replay."""
    inside, most = [], []

    def replay(self, recorded, inputs):
        inside.append(inputs)
        most.append(len(inside))
        threading.Event().wait(0.001)
        inside.pop()
        return "replayed"

    monkeypatch.setattr(Cache, "_replay", replay)
    cache = Cache(limit=2)
    threads = [threading.Thread(target=lambda: [run(cache, 4) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) >= 4 * 20 - RECORDED_AT and max(most) == 1
