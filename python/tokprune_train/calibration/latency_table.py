"""How long a layer takes on a machine, by the number of its tokens: a measured table, and the line through it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds that one layer of a model spends in its two parts, for batches of `texts` texts.

    tokens: tokens of the whole batch in the layer, strictly rising, two or more.
    attention_ms: in the projections to query, key and value and in the attention, at that many tokens.
    rest_ms: in the output projection, the feed-forward part and the two norms. Both rise, see `isotonic`.
    texts: texts in the batch.   threads: torch's number of threads.   dtype: of weights and activations, "float32" for example.
    machine: what it was measured on, JSON types.

    Raises ValueError naming the field that is wrong.
    """

    tokens: tuple[float, ...]
    attention_ms: tuple[float, ...]
    rest_ms: tuple[float, ...]
    texts: int
    threads: int
    dtype: str
    machine: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("tokens", "attention_ms", "rest_ms"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if len(self.tokens) < 2 or any(left >= right for left, right in pairwise(self.tokens)) or self.tokens[0] <= 0:
            raise ValueError(f"tokens must be two or more positive numbers, strictly rising, got {list(self.tokens)}")
        for name in ("attention_ms", "rest_ms"):
            values = getattr(self, name)
            if len(values) != len(self.tokens):
                raise ValueError(f"{name} must hold one time for each of the {len(self.tokens)} tokens, got {len(values)}")
            if values[0] < 0 or values[-1] == 0 or any(left > right for left, right in pairwise(values)):
                raise ValueError(f"{name} must be times that do not fall, see isotonic(), got {list(values)}")
        for name in ("texts", "threads"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive int, got {value!r}")
        if not isinstance(self.dtype, str) or not isinstance(self.machine, Mapping):
            raise ValueError(f"dtype must be a str and machine a mapping, got {self.dtype!r} and {self.machine!r}")

    def attention_at(self, tokens: Tensor) -> Tensor:
        """Milliseconds of the attention part at numbers of tokens (...), float64; differentiable, see `interpolate`."""
        return interpolate(tokens, self.tokens, self.attention_ms)

    def rest_at(self, tokens: Tensor) -> Tensor:
        """Milliseconds of the rest of a layer at numbers of tokens (...), float64; differentiable, see `interpolate`."""
        return interpolate(tokens, self.tokens, self.rest_ms)

    def to_json(self) -> str:
        """The fields as a JSON object; `from_json` reads it back."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> LatencyTable:
        """The table that `to_json` wrote; ValueError if it is no such object, or a field is missing, unknown or wrong."""
        try:
            values = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"a latency table must be JSON as LatencyTable.to_json() writes it: {error}") from error
        known = {each.name for each in fields(cls)}
        if not isinstance(values, dict) or set(values) != known:
            found = sorted(values) if isinstance(values, dict) else values
            raise ValueError(f"a latency table must be a JSON object of {', '.join(sorted(known))}, got {found!r}")
        return cls(**values)


def interpolate(x: Tensor, points: Sequence[float], values: Sequence[float]) -> Tensor:
    """The line through (points, values) at x (...), float64: linear between, and beyond the ends along the end segments.

    Never below 0. Differentiable with respect to x: the slope of the segment.   points: strictly rising, two or more.
    """
    x = x.double()
    points, values = (torch.tensor(each, dtype=torch.float64, device=x.device) for each in (points, values))
    slopes = values.diff() / points.diff()
    segment = (torch.searchsorted(points, x.detach(), right=True) - 1).clamp(0, len(slopes) - 1)
    return (values[segment] + slopes[segment] * (x - points[segment])).clamp(min=0)


def isotonic(values: Sequence[float]) -> list[float]:
    """The rising sequence nearest to the values in least squares (pool adjacent violators).

    More tokens never take less time; where noise says so, a training on the table would be paid for *keeping* tokens.
    """
    blocks: list[tuple[float, int]] = []  # (mean, number of values in it)
    for value in values:
        mean, count = float(value), 1
        while blocks and blocks[-1][0] > mean:
            before, others = blocks.pop()
            mean, count = (mean * count + before * others) / (count + others), count + others
        blocks.append((mean, count))
    return [mean for mean, count in blocks for _ in range(count)]


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    good = isinstance(values, Sequence) and not isinstance(values, str)
    if not good or any(isinstance(v, bool) or not isinstance(v, (int, float)) or not math.isfinite(v) for v in values):
        raise ValueError(f"{name} must be a list of finite numbers, got {values!r}")
    return tuple(map(float, values))
