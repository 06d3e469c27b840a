"""The table of measured times: the line through it, its clean-up, JSON, and what it refuses."""

import json
from dataclasses import replace

import pytest
import torch
from tokprune_train.calibration.latency_table import LatencyTable, interpolate, isotonic

TABLE = LatencyTable(
    tokens=(10, 20, 40),
    attention_ms=(1.0, 3.0, 4.0),
    rest_ms=(0.5, 2.5, 2.5),
    texts=4,
    threads=2,
    dtype="float32",
    machine={"cpu": {"model": "some"}, "gpu": []},
)


def test_interpolation_by_hand():
    """Between points, at them, and along the end segments beyond, but never below 0."""
    tokens = torch.tensor([1.0, 10, 15, 20, 30, 40, 60])
    assert TABLE.attention_at(tokens).tolist() == pytest.approx([0, 1, 2, 3, 3.5, 4, 5])
    assert TABLE.rest_at(tokens).tolist() == pytest.approx([0, 0.5, 1.5, 2.5, 2.5, 2.5, 2.5])


def test_interpolation_gradients():
    x = torch.tensor([[1.0, 12], [33, 70]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: interpolate(x, TABLE.tokens, TABLE.attention_ms), x)
    TABLE.attention_at(x).sum().backward()
    assert x.grad.flatten().tolist() == pytest.approx([0, 0.2, 0.05, 0.05])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([1, 3, 2, 4], [1, 2.5, 2.5, 4]),
        ([3, 2, 1], [2, 2, 2]),
        ([1, 5, 4, 3, 9], [1, 4, 4, 4, 9]),
        ([], []),
    ],
)
def test_isotonic_by_hand(values, expected):
    assert isotonic(values) == pytest.approx(expected)


def test_isotonic_is_nearest_in_least_squares():
    values = torch.rand(12, dtype=torch.float64)
    fit = torch.tensor(isotonic(values.tolist()), dtype=torch.float64)
    best = (fit - values).square().sum()
    for _ in range(200):  # no rising sequence near it is nearer
        other = (fit + 0.05 * torch.randn(12, dtype=torch.float64)).cummax(0).values
        assert (other - values).square().sum() >= best


def test_json_round_trip():
    text = TABLE.to_json()
    assert LatencyTable.from_json(text) == TABLE
    assert json.loads(text)["attention_ms"] == [1.0, 3.0, 4.0]


BAD = {
    "tokens must be two or more": {"tokens": (10, 10, 40)},
    "tokens must be a list": {"tokens": ("10", 20, 40)},
    "attention_ms must hold one time": {"attention_ms": (1.0, 2.0)},
    "attention_ms must be times that do not fall": {"attention_ms": (1.0, 3.0, 2.9)},
    "rest_ms must be times": {"rest_ms": (-0.5, 2.5, 2.5)},
    "rest_ms must be a list of finite": {"rest_ms": (0.5, 2.5, float("nan"))},
    "texts": {"texts": 0},
    "threads": {"threads": 1.5},
    "dtype": {"dtype": None},
}


@pytest.mark.parametrize("named", BAD)
def test_refusals(named):
    with pytest.raises(ValueError, match=named):
        replace(TABLE, **BAD[named])


@pytest.mark.parametrize("text", ["{", "[]", json.dumps(json.loads(TABLE.to_json()) | {"speed": 1}), '{"tokens": [1, 2]}'])
def test_json_that_is_no_table(text):
    with pytest.raises(ValueError, match="a latency table must be"):
        LatencyTable.from_json(text)
