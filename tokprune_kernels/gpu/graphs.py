"""CUDA graphs of functions of tensors: recorded once for each shape of their inputs, then replayed with one launch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor


class GraphCache:
    """At most `limit` recorded graphs, the least recently used one given up first; they share one pool of memory.

    Not for several threads at once, as CUDA graphs themselves are not: their buffers are the graph's own.
    """

    def __init__(self, limit: int = 16):
        self.limit = limit
        self._recorded: OrderedDict[Hashable, _Recorded] = OrderedDict()
        self._pool = None

    def __len__(self) -> int:
        return len(self._recorded)

    def clear(self) -> None:
        """Give up all graphs and their memory."""
        self._recorded.clear()
        self._pool = None

    def run(self, key: Hashable, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """function(*inputs) for inputs on a GPU; the result is the caller's own.

        key: names the function and everything beside the inputs' shapes and dtypes that its launches depend on. The function must
        neither wait for the device nor keep state. On the CPU, where triton's interpreter runs it, it is simply called.
        """
        if not inputs[0].is_cuda:
            return function(*inputs)
        key = (key, tuple((x.shape, x.dtype, x.device) for x in inputs))
        recorded = self._recorded.get(key)
        if recorded is None:
            recorded = self._record(function, inputs)
            self._recorded[key] = recorded
            if len(self._recorded) > self.limit:
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(key)
        for own, given in zip(recorded.inputs, inputs, strict=True):
            own.copy_(given)
        recorded.graph.replay()
        return recorded.output.clone()

    # Buffers made in inference mode could not be written to outside of it.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _record(self, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> _Recorded:
        own = tuple(x.clone() for x in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # compiles the kernels, which a recording must not
            function(*own)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = function(*own)
        if self._pool is None:
            self._pool = graph.pool()
        return _Recorded(graph, own, output)
