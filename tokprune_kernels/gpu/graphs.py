"""CUDA graphs of functions of tensors: recorded for shapes of their inputs that come again, then replayed with one launch."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# A shape is recorded when it comes for the second time: to record one takes as long as many calls. Where the cache is full another
# graph must go for it, so that it has to come more often; shapes without end would otherwise be recorded for ever.
RECORDED_AT, RECORDED_AT_WHEN_FULL = 2, 32
CALLS_COUNTED = 1024  # shapes whose calls are counted before all counts begin anew


@dataclass(frozen=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class GraphCache:
    """At most `limit` recorded graphs, the least recently used one given up first; they share one pool of memory.

    A graph's buffers are its own, and its temporary ones all graphs': calls from several threads take turns, and a call on another
    stream than the last one waits, on the device, for that.
    """

    def __init__(self, limit: int = 32):
        self.limit = limit
        self._turn = threading.Lock()
        self._forget()

    def __len__(self) -> int:
        return len(self._recorded)

    def clear(self) -> None:
        """Give up all graphs and their memory."""
        with self._turn:
            self._forget()

    def _forget(self) -> None:
        self._recorded: OrderedDict[Hashable, _Recorded] = OrderedDict()
        self._calls: Counter[Hashable] = Counter()
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._pool = self._last_stream = None

    def run(self, key: Hashable, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """function(*inputs) for inputs on a GPU; the result is the caller's own.

        key: names the function and everything beside the inputs' shapes and dtypes that its launches depend on. The function must
        neither wait for the device nor keep state. On the CPU, where triton's interpreter runs it, it is simply called.
        """
        if not inputs[0].is_cuda:
            return function(*inputs)
        key = (key, tuple((x.shape, x.dtype, x.device) for x in inputs))
        with self._turn, torch.cuda.device(inputs[0].device):
            recorded = self._recorded.get(key)
            if recorded is None:
                if not self._is_due(key):
                    return function(*inputs)
                recorded = self._keep(key, self._record(function, inputs))
            self._recorded.move_to_end(key)
            return self._replay(recorded, inputs)

    def _is_due(self, key: Hashable) -> bool:
        if len(self._calls) > CALLS_COUNTED:
            self._calls.clear()
        self._calls[key] += 1
        full = len(self._recorded) >= self.limit
        return self._calls[key] >= (RECORDED_AT_WHEN_FULL if full else RECORDED_AT)

    def _keep(self, key: Hashable, recorded: _Recorded) -> _Recorded:
        del self._calls[key]
        self._recorded[key] = recorded
        if len(self._recorded) > self.limit:
            self._recorded.popitem(last=False)
        return recorded

    def _replay(self, recorded: _Recorded, inputs: Sequence[Tensor]) -> Tensor:
        stream = torch.cuda.current_stream()
        if self._last_stream is not None and self._last_stream != stream:
            stream.wait_stream(self._last_stream)
        self._last_stream = stream
        for own, given in zip(recorded.inputs, inputs, strict=True):
            own.copy_(given)
        recorded.graph.replay()
        return recorded.output.clone()

    # Buffers made in inference mode could not be written to outside of it.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _record(self, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> _Recorded:
        own = tuple(x.clone() for x in inputs)
        current = torch.cuda.current_stream()
        # A stream of this device: the one that torch would take is of whatever device recorded first.
        stream = self._streams.setdefault(inputs[0].device, torch.cuda.Stream())
        stream.wait_stream(current)
        with torch.cuda.stream(stream):  # compiles the kernels for these very buffers, which a recording must not
            function(*own)
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Thread-local: what other threads ask of the device meanwhile, as loaders of data do, is none of the recording's business.
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            output = function(*own)
        if self._pool is None:
            self._pool = graph.pool()
        return _Recorded(graph, own, output)
