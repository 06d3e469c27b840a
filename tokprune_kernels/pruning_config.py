"""What is pruned, layer by layer: the one description that calibration and training end in and the models read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

CRITERIA = ("threshold", "topk")
POSITIONS = ("after_attention", "before_layer")
DENOMINATORS = ("kept", "sqrt_kept", "initial")
READOUTS = ("tokens", "survivor_mean", "first")
_LARGEST = 2**31 - 1  # ids and lengths are counted in int32
DENOMINATORS_SAID = f"{', '.join(map(repr, DENOMINATORS))} or a positive int"


@dataclass(frozen=True)
class PruningConfig:
    """Which tokens are removed at which layer; build it with `ltp`, `top` or `dense`.

    criterion: "threshold" (keep a token iff its importance >= thresholds[l]) or "topk" (keep the share keep_ratios[l] of
        the tokens alive).
    thresholds, keep_ratios: one number per layer, only the one the criterion reads; both None = nothing is pruned.
        A threshold <= 0.0 or a ratio of 1.0 prunes nothing at that layer.
    position: "after_attention" (importance of layer l decides between attention and output projection of layer l) or
        "before_layer" (importance of layer l-1 decides at the entry of layer l; entry 0 must prune nothing).
    score_denominator: what the column sums of attention are divided by (besides the heads): "kept" (the rows alive, so that
        a text's scores sum to 1), "sqrt_kept" (their square root: thresholds spare long texts), "initial" (its length before
        any pruning) or a positive int (LTP's official code: the padded length).
    protect_first: never prune a text's first live token ([CLS]).
    count_first: a keep ratio is of all tokens alive, the first among them. False, for "topk" with protect_first: of those past
        the first, which stays beside them, so that 1 + ceil(ratio * (n - 1)) do (ToP's official code).
    protected_token_ids: input ids that are never pruned, for example that of [SEP].
    readout: what a base model's last_hidden_state is read for, where it is called itself (heads read what they need): "tokens" (each
        token's own state: survivors' final ones, exit states of those pruned), "survivor_mean" (something averages over the tokens:
        the rows of pruned tokens hold the mean of their text's survivors, so that the mean of all is the survivors'), "first"
        (something reads the first token, [CLS], alone: every row holds its state, and no other is restored). None: "tokens",
        unless the model is given to `prune_model` inside a SentenceTransformer, whose pooling then says it.
    exact_last_layer: not pruning, but beside it: for heads that read only the pooled first token, the last layer computes
        that token's row alone. Same outputs; off where hidden states or the last layer's importance are asked for.

    Raises ValueError (TypeError for wrong types) naming the field that is wrong.
    """

    criterion: str = "threshold"
    thresholds: tuple[float, ...] | None = None
    keep_ratios: tuple[float, ...] | None = None
    position: str = "after_attention"
    score_denominator: str | int = "kept"
    protect_first: bool = True
    protected_token_ids: tuple[int, ...] = ()
    exact_last_layer: bool = True
    readout: str | None = None
    count_first: bool = True

    def __post_init__(self) -> None:
        _one_of("criterion", self.criterion, CRITERIA)
        _one_of("position", self.position, POSITIONS)
        _check_denominator(self.score_denominator)
        if self.readout is not None:
            _one_of("readout", self.readout, READOUTS)
        for name in ("protect_first", "exact_last_layer", "count_first"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        self._set("thresholds", _numbers("thresholds", self.thresholds))
        self._set("keep_ratios", _numbers("keep_ratios", self.keep_ratios))
        self._set("protected_token_ids", _token_ids(self.protected_token_ids))
        self._check_values()

    @classmethod
    def ltp(cls, thresholds: Iterable[float], **options: Any) -> PruningConfig:
        """Learned Token Pruning (Kim et al., KDD 2022): one importance threshold per layer; 0.0 = no pruning there.

        options: position (default "after_attention"), score_denominator, protect_first, protected_token_ids, readout.
        """
        return cls(criterion="threshold", thresholds=_given("thresholds", thresholds), **options)

    @classmethod
    def top(cls, keep_ratios: Iterable[float], **options: Any) -> PruningConfig:
        """Ranked pruning (ToP, Li et al., KDD 2023): the share of the tokens alive kept at each layer; entry 0 must be 1.0.

        options: position (default "before_layer"; with "after_attention" entry 0 is free), score_denominator,
        protect_first, count_first, protected_token_ids, readout.
        """
        options.setdefault("position", "before_layer")
        return cls(criterion="topk", keep_ratios=_given("keep_ratios", keep_ratios), **options)

    @classmethod
    def dense(cls) -> PruningConfig:
        """Nothing is pruned; the batch is still packed, so that padding costs nothing."""
        return cls()

    @property
    def values(self) -> tuple[float, ...] | None:
        """The list the criterion reads, None if nothing is pruned."""
        return self.thresholds if self.criterion == "threshold" else self.keep_ratios

    @property
    def is_dense(self) -> bool:
        """Whether no layer prunes."""
        return not any(map(self.prunes_at, range(len(self.values or ()))))

    def prunes_at(self, layer: int) -> bool:
        """Whether tokens may be removed at this layer (0-based)."""
        if self.values is None:
            return False
        value = self.values[layer]
        return value > 0.0 if self.criterion == "threshold" else value < 1.0

    def validate(self, num_layers: int) -> None:
        """Raise ValueError unless there is one entry per layer of a model with `num_layers` layers."""
        if self.values is not None and len(self.values) != num_layers:
            name = "thresholds" if self.criterion == "threshold" else "keep_ratios"
            raise ValueError(
                f"{name} needs one entry per layer: the model has {num_layers} layers, got {len(self.values)} entries"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types (lists, numbers, strings); `from_dict` reads it back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PruningConfig:
        """The configuration that `to_dict` described; raises ValueError for an unknown key, TypeError for no mapping."""
        if not isinstance(values, Mapping):
            raise TypeError(f"a pruning description must be a dict as PruningConfig.to_dict() gives it, got {values!r}")
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown key(s) in the pruning description: {', '.join(unknown)}; known: {', '.join(known)}")
        return cls(**values)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_values(self) -> None:
        read, other = ("thresholds", "keep_ratios") if self.criterion == "threshold" else ("keep_ratios", "thresholds")
        if getattr(self, other) is not None:
            raise ValueError(f"criterion {self.criterion!r} reads {read}: give {read}, not {other}")
        if not self.count_first and self.criterion != "topk":
            raise ValueError(
                f"count_first=False says what a keep ratio is of, criterion {self.criterion!r} has none: leave it out, or use "
                "criterion 'topk'"
            )
        if not self.count_first and not self.protect_first:
            raise ValueError(
                "count_first=False sets the first token beside the ranking, where it always stays: it needs protect_first=True"
            )
        for layer, value in enumerate(self.values or ()):
            if not math.isfinite(value):
                raise ValueError(f"{read}[{layer}] must be finite, got {value}")
            if self.criterion == "topk" and not 0.0 < value <= 1.0:
                raise ValueError(f"keep_ratios[{layer}] must be in (0, 1], got {value}: it is the share of tokens kept")
        if self.position == "before_layer" and self.values and self.prunes_at(0):
            nothing = "0.0" if self.criterion == "threshold" else "1.0"
            raise ValueError(
                f"{read}[0] must be {nothing} with position='before_layer', got {self.values[0]}: no layer has scored "
                "the tokens before layer 0"
            )


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _given(name: str, values: Any) -> Any:
    if values is None:
        raise TypeError(f"{name} must hold one number per layer, got None; use PruningConfig.dense() to prune nothing")
    return values


def _check_denominator(value: Any) -> None:
    if isinstance(value, str):
        _one_of("score_denominator", value, DENOMINATORS)
    elif isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"score_denominator must be {DENOMINATORS_SAID}, got {value!r}")
    elif value <= 0:
        raise ValueError(f"score_denominator must be positive, got {value}")
    elif value > _LARGEST:
        raise ValueError(f"score_denominator must be at most {_LARGEST}, got a number of {len(str(value))} digits")


def _numbers(name: str, values: Any) -> tuple[float, ...] | None:
    if values is None:
        return None
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of numbers, one per layer, got {values!r}")
    numbers = []
    for value in values:
        if isinstance(value, (str, bytes, bool)) or not hasattr(value, "__float__"):
            raise TypeError(f"{name} must hold numbers, got {value!r}")
        try:
            numbers.append(float(value))
        except OverflowError:
            raise ValueError(f"{name} must hold numbers that a float can be, got one of {len(str(value))} digits") from None
    return tuple(numbers)


def _token_ids(values: Any) -> tuple[int, ...]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"protected_token_ids must be a list of input ids, got {values!r}")
    ids = []
    for value in values:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"protected_token_ids must hold ints, got {value!r}")
        if value < 0:
            raise ValueError(f"protected_token_ids must hold input ids >= 0, got {value}")
        if value > _LARGEST:
            raise ValueError(f"protected_token_ids must hold input ids of at most {_LARGEST}, got a number of {len(str(value))} digits")
        ids.append(value.__index__())
    return tuple(ids)
