"""Relative cost by hand: FLOPs of expected lengths, and milliseconds from a table."""

from types import SimpleNamespace

import pytest
import torch
from tokprune_train.calibration.latency_table import LatencyTable
from tokprune_train.objectives.cost import FlopsCost, LatencyCost

SMALL = SimpleNamespace(hidden_size=10, intermediate_size=30, num_hidden_layers=2)
TABLE = LatencyTable((2, 10, 50), (1.0, 3.0, 8.0), (0.5, 1.0, 4.0), texts=2, threads=1, dtype="float32")
INITIAL = torch.tensor([8, 0, 4])
LENGTHS = torch.tensor([[8.0, 0, 4], [2.5, 0, 4], [1.5, 0, 1]])


def layer(n, m):
    return 2 * n * n * 10 + 3 * n * 100 + m * 100 + 2 * m * 300


@pytest.mark.parametrize(("position", "ffn"), [("before_layer", (0, 1)), ("after_attention", (1, 2))])
def test_flops_by_hand(position, ffn):
    """The ratio of the texts' sums, so that a text counts by its cost; the empty one does not count."""
    pruned = dense = 0
    for text in (0, 2):
        n = LENGTHS[:, text].tolist()
        pruned += layer(n[0], n[ffn[0]]) + layer(n[1], n[ffn[1]])
        dense += 2 * layer(n[0], n[0])
    cost = FlopsCost(SMALL, position)
    assert float(cost(LENGTHS, INITIAL)) == pytest.approx(pruned / dense)
    assert [float(total) for total in cost.totals(LENGTHS, INITIAL)] == pytest.approx([2 * pruned, 2 * dense])


@pytest.mark.parametrize(("position", "ffn"), [("before_layer", (0, 1)), ("after_attention", (1, 2))])
def test_latency_by_hand(position, ffn):
    """Two texts of the mean length of those that are not empty: 12, 6.5 and 2.5 tokens."""
    tokens = torch.tensor([12.0, 6.5, 2.5])
    attention, rest = TABLE.attention_at(tokens), TABLE.rest_at(tokens)
    assert attention.tolist() == pytest.approx([3.25, 2.125, 1.125])
    pruned = attention[0] + rest[ffn[0]] + attention[1] + rest[ffn[1]]
    expected = pruned / (2 * (attention[0] + rest[0]))
    assert float(LatencyCost(TABLE, position)(LENGTHS, INITIAL)) == pytest.approx(float(expected))


@pytest.mark.parametrize("cost", [FlopsCost(SMALL, "before_layer"), LatencyCost(TABLE, "after_attention")])
def test_nothing_pruned_costs_one(cost):
    assert float(cost(INITIAL.float().expand(3, -1), INITIAL)) == pytest.approx(1.0)


@pytest.mark.parametrize("position", ["before_layer", "after_attention"])
@pytest.mark.parametrize("cost", [lambda position: FlopsCost(SMALL, position), lambda position: LatencyCost(TABLE, position)])
def test_gradients(cost, position):
    lengths = LENGTHS.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda n: cost(position)(n, INITIAL), lengths)


def test_empty_batch():
    empty = torch.zeros(2, dtype=torch.int64)
    assert FlopsCost(SMALL, "before_layer")(torch.zeros(3, 2), empty) == 0
    with pytest.raises(ValueError, match="initial"):
        LatencyCost(TABLE, "before_layer")(torch.zeros(3, 2), empty)


def test_refusals():
    with pytest.raises(ValueError, match="position"):
        FlopsCost(SMALL, "after_layer")
    with pytest.raises(ValueError, match="position"):
        LatencyCost(TABLE, "after_layer")
    with pytest.raises(ValueError, match="lengths"):
        LatencyCost(TABLE, "before_layer")(LENGTHS, INITIAL[:2])
