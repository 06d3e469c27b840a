"""Measuring the time of a layer on this machine, for a training or calibration under a budget of latency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import nn

from tokprune_kernels.cli.machine import machine_stamp
from tokprune_kernels.cli.timing import interleave

from .latency_table import LatencyTable, isotonic
from .layer_stack import LayerStack

# Dense batches and what pruning leaves of them, down to few tokens, where time is the reading of the weights.
SHARES = (0.05, 0.1, 0.15, 0.25, 0.35, 0.5, 0.65, 0.8, 1.0)


def measure_latency_table(
    model: nn.Module,
    texts: int,
    lengths: Sequence[int],
    *,
    shares: Sequence[float] = SHARES,
    repeats: int = 20,
    budget_s: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LatencyTable:
    """Measure how long a layer of this model's shape takes, with this package's kernels and torch's current threads.

    A batch of `texts` texts is made that has the distribution of the given lengths, then shortened, every text alike. At each
    size the stack of layers is timed as inference runs it, as one op, and op by op; the first gives the time of a
    layer, the second how it divides into attention and rest. Sizes take turns, repeat by repeat; medians are reported, made to
    rise with the tokens (`isotonic`). Weights of the model's size are allocated and freed.

    Args:
        model: a Hugging Face encoder on the CPU, pruned or not; its config and dtype count, it is not run.
        texts: texts in a batch.
        lengths: tokens of texts such as the model will see.
        shares: of those lengths, in (0, 1], at which is measured; sizes that round to the same number of tokens are one.
        repeats: timed rounds, at least 1.   budget_s: no round starts after that many seconds (at least 3 run), or None.
        progress: called with (rounds done, rounds wanted).

    Raises:
        ValueError: the model is elsewhere than on the CPU, in a dtype or with an activation that the kernels do not have,
            or there are not two different sizes to measure.
    """
    if model.device.type != "cpu" or model.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(
            f"latency is measured with the CPU kernels, in float32 or bfloat16; got a model of {model.dtype} on {model.device}"
        )
    batches = _batches(texts, lengths, shares)
    stack = LayerStack(model.config, model.dtype)
    machine = machine_stamp()
    points = [_Point(stack, batch) for batch in batches]
    with torch.inference_mode():
        for point in points:
            point.measure()
        contenders = {str(point.tokens): point.record for point in points}
        interleave(contenders, repeats, warmup=0, budget_s=budget_s, progress=progress)
    attention, rest = zip(*(point.medians() for point in points), strict=True)
    return LatencyTable(
        tokens=tuple(point.tokens for point in points),
        attention_ms=tuple(isotonic(attention)),
        rest_ms=tuple(isotonic(rest)),
        texts=texts,
        threads=torch.get_num_threads(),
        dtype=str(model.dtype).removeprefix("torch."),
        machine=machine,
    )


class _Point:
    """One size of batch, and the times measured at it so far."""

    def __init__(self, stack: LayerStack, lengths: tuple[int, ...]):
        self.stack, self.tokens = stack, sum(lengths)
        bounds = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
        self.batch = (stack.states(self.tokens), bounds, max(lengths))
        self.samples: list[tuple[float, float, float]] = []

    def measure(self) -> tuple[float, float, float]:
        """Milliseconds a layer: whole, attention part, rest."""
        return self.stack.time_whole(*self.batch), *self.stack.time_parts(*self.batch)

    def record(self) -> None:
        self.samples.append(self.measure())

    def medians(self) -> tuple[float, float]:
        """The whole layer's time, divided as its parts are."""
        whole, attention, rest = map(median, zip(*self.samples, strict=True))
        return whole * attention / (attention + rest), whole * rest / (attention + rest)


def _batches(texts: int, lengths: Sequence[int], shares: Sequence[float]) -> list[tuple[int, ...]]:
    """Lengths of the texts of each batch to measure, by rising number of tokens."""
    if texts < 1 or not lengths or min(lengths) < 1:
        raise ValueError(f"texts must be at least 1 and lengths positive, got {texts} and {list(lengths)}")
    if not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares must be in (0, 1], got {list(shares)}")
    ordered = sorted(lengths)
    full = [ordered[int((text + 0.5) * len(ordered) / texts)] for text in range(texts)]
    batches = {}
    for share in sorted(shares):
        batch = tuple(max(1, round(share * length)) for length in full)
        batches[sum(batch)] = batch
    if len(batches) < 2:
        raise ValueError(
            f"two different sizes are needed to measure, got only {list(batches)} tokens from shares {list(shares)} of lengths "
            f"{sorted(set(full))}: give longer texts or more shares"
        )
    return list(batches.values())
