"""Interleaved timing: the one way this project compares speeds."""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Wall-clock samples of one contender, in seconds, one for each round."""

    samples_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """Median of the samples, seconds."""
        return statistics.median(self.samples_s)

    @property
    def p95_s(self) -> float:
        """95th percentile of the samples (nearest rank), seconds; the slowest sample where there are fewer than 20."""
        ordered = sorted(self.samples_s)
        return ordered[math.ceil(0.95 * len(ordered)) - 1]

    def to_dict(self) -> dict:
        """Return median, p95 and all samples in milliseconds, for JSON."""
        return {
            "median_ms": 1e3 * self.median_s,
            "p95_ms": 1e3 * self.p95_s,
            "samples_ms": [1e3 * sample for sample in self.samples_s],
        }


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    repeats: int,
    warmup: int = 1,
    budget_s: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    at_least: int = 3,
    settle_s: float = 0.0,
) -> dict[str, Timing]:
    """Time every contender once a round, for `repeats` rounds, and return their timings under the same names.

    Rounds are interleaved, so that a machine that slows down or speeds up does so for all of them alike, and each round
    runs in an order of its own (shuffled, the same in every process), so that none always inherits another's caches.

    contenders: name -> function without arguments. repeats: rounds, at least 1. warmup: untimed rounds before.
    budget_s: no new round starts when this many seconds have gone since the first timed one (`at_least` rounds run).
    progress: called with (rounds done, rounds wanted) after each round.
    settle_s: pause before each timed call, in seconds and not timed. Thread pools spin for some milliseconds after
        their work; a contender that follows at once would share the cores with the pool of the one before.
    Raises ValueError for no contenders or repeats < 1.
    """
    if not contenders or repeats < 1:
        raise ValueError(f"need at least one contender and one repeat, got {len(contenders)} and {repeats}")
    names = list(contenders)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(warmup):
        for name in names:
            contenders[name]()
    shuffle = random.Random(0)
    begin = time.perf_counter()
    for done in range(repeats):
        if budget_s is not None and done >= at_least and time.perf_counter() - begin > budget_s:
            break
        for name in shuffle.sample(names, len(names)):
            if settle_s > 0.0:
                time.sleep(settle_s)
            start = time.perf_counter()
            contenders[name]()
            samples[name].append(time.perf_counter() - start)
        if progress is not None:
            progress(done + 1, repeats)
    return {name: Timing(tuple(values)) for name, values in samples.items()}
