"""Times on a GPU: interleaved rounds, events on the device, medians."""

import random
import statistics
from collections.abc import Callable, Mapping

import torch


def time_on_gpu(
    contenders: Mapping[str, Callable[[], object]], rounds: int = 15, inner: int = 10, graphs: bool = False
) -> dict[str, float]:
    """Median milliseconds of a call of each contender; `inner` calls are queued between two events, rounds take turns.

    Each round goes through the contenders in an order of its own. A call that is launched more slowly than it runs is timed with
    its launches, as its user would wait for them; with `graphs` the calls are recorded in a CUDA graph, which launches them itself.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    queues = {name: _recorded(call, inner) if graphs else _repeated(call, inner) for name, call in contenders.items()}
    shuffle = random.Random(0)
    for _ in range(rounds):
        for name in shuffle.sample(list(contenders), len(contenders)):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            queues[name]()
            end.record()
            end.synchronize()
            samples[name].append(start.elapsed_time(end) / inner)
    return {name: statistics.median(values) for name, values in samples.items()}


def _repeated(call: Callable[[], object], times: int) -> Callable[[], None]:
    def run():
        for _ in range(times):
            call()

    return run


def _recorded(call: Callable[[], object], times: int) -> Callable[[], None]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        _repeated(call, times)()
    return graph.replay


def peaks(dtype: torch.dtype) -> tuple[float, float]:
    """Measured ceilings of this GPU: multiply-adds of a large product in FLOP/s, and memory in bytes/s (read and write of a copy)."""
    a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
    source, target = torch.empty(2, 2**28, device="cuda", dtype=torch.uint8)
    times = time_on_gpu({"product": lambda: a @ a, "copy": lambda: target.copy_(source)}, rounds=7)
    return 2 * 8192**3 / times["product"] * 1e3, 2 * 2**28 / times["copy"] * 1e3


def available(name: str, make: Callable[[], Callable[[], object]]) -> dict[str, Callable[[], object]]:
    """{name: call}, or nothing, said aloud, where this machine's PyTorch cannot make or run a competitor."""
    try:
        call = make()
        call()
        torch.cuda.synchronize()
    except Exception as error:  # compilers have exceptions of their own
        print(f"left out: {name}: {first_line(error)}", flush=True)
        return {}
    return {name: call}


def first_line(error: Exception) -> str:
    """Of its message; its type where there is none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
