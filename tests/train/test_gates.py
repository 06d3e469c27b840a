"""ToP's gates: samples, their deterministic form and what is exported; rank bins against a loop over the texts."""

import math

import pytest
import torch
from tokprune_train.objectives.gates import LIMIT, RankGates, rank_bins, rank_weights
from tokprune_train.objectives.hard_concrete import hard_concrete, open_probability

from tokprune_kernels import PruningConfig, ops

from .naive import bounds, ranked, rows_of


def gates_with(fine, coarse_logits=None, layers=(1, 3), num_layers=4, **options):
    gates = RankGates(num_layers, layers, bins=len(fine[0]), **options)
    with torch.no_grad():
        gates.fine.copy_(torch.tensor(fine))
        if coarse_logits is not None:
            gates.coarse.copy_(torch.tensor(coarse_logits))
    return gates


def test_start_and_clamp():
    gates = RankGates(6, [1, 4], bins=5)
    assert gates.fine.shape == (2, 5) and gates.coarse.shape == (2,)
    assert gates.fine.unique().tolist() == pytest.approx([math.log(100)])
    assert gates.coarse.unique().tolist() == pytest.approx([-math.log(100)])
    with torch.no_grad():
        gates.fine.fill_(-1e3), gates.coarse.fill_(1e3)
    gates.clamp_()
    assert gates.fine.unique().tolist() == pytest.approx([-LIMIT])
    assert gates.coarse.unique().tolist() == pytest.approx([LIMIT])


def test_sample_draws_fine_then_coarse_from_the_generator():
    gates = gates_with([[0.3, -0.2, 0.0], [1.0, 0.0, -1.0]], [0.5, -0.5])
    sample = gates.sample(torch.Generator().manual_seed(3))
    same = torch.Generator().manual_seed(3)
    torch.testing.assert_close(sample.fine, hard_concrete(gates.fine, torch.rand(2, 3, generator=same)))
    soft = hard_concrete(gates.coarse, torch.rand(2, generator=same))
    assert torch.equal(sample.coarse, (soft > 0).float())


def test_coarse_gates_are_binary_with_the_gradient_of_the_soft_value():
    gates = RankGates(9, range(1, 9), coarse_start=0.0)
    sample = gates.sample(torch.Generator().manual_seed(0))
    assert set(sample.coarse.tolist()) <= {0.0, 1.0}
    weights = torch.arange(1.0, 9.0)
    (sample.coarse * weights).sum().backward()
    logits = torch.zeros(8, requires_grad=True)
    same = torch.Generator().manual_seed(0)
    torch.rand(gates.fine.shape, generator=same)
    (hard_concrete(logits, torch.rand(8, generator=same)) * weights).sum().backward()
    assert torch.equal(gates.coarse.grad, logits.grad) and (logits.grad != 0).any()


def test_samples_are_open_as_often_as_the_probability_says():
    gates = RankGates(2, [1], bins=20000, fine_start=-1.0)
    share = (gates.sample(torch.Generator().manual_seed(0)).fine > 0).float().mean()
    assert float(share) == pytest.approx(float(open_probability(torch.tensor(-1.0))), abs=0.015)  # 4 standard deviations


def test_keep_probability_by_hand():
    gates = gates_with([[2.0, -2.0], [0.0, 0.0]], [1.0, -3.0])
    open_at = {a: float(open_probability(torch.tensor(a))) for a in (2.0, -2.0, 0.0, 1.0, -3.0)}
    first = 1 - (1 - (open_at[2.0] + open_at[-2.0]) / 2) * open_at[1.0]
    second = 1 - (1 - open_at[0.0]) * open_at[-3.0]
    assert gates.keep_probability().tolist() == pytest.approx([first, second])


def test_keep_probability_gradients():
    gates = gates_with([[0.5, -0.2], [0.1, 0.0]], [0.3, -0.4]).double()

    def probability(fine, coarse):
        return torch.func.functional_call(Probability(gates), {"gates.fine": fine, "gates.coarse": coarse}, ())

    inputs = [parameter.detach().clone().requires_grad_() for parameter in (gates.fine, gates.coarse)]
    assert torch.autograd.gradcheck(probability, inputs)


class Probability(torch.nn.Module):
    """keep_probability as a forward, for functional_call."""

    def __init__(self, gates):
        super().__init__()
        self.gates = gates

    def forward(self):
        return self.gates.keep_probability()


def test_deterministic_takes_the_expected_number_of_bins_off_the_end():
    low, high = -LIMIT, LIMIT
    gates = gates_with([[high, high, low, low], [low, high, high, high]], [2.0, 2.0])
    zeros = (4 - open_probability(gates.fine).sum(dim=1)).tolist()
    assert [round(z) for z in zeros] == [2, 1]
    sample = gates.deterministic()
    assert sample.fine.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]] and sample.coarse.tolist() == [1, 1]
    assert gates.keep_ratios() == [1.0, 0.5, 1.0, 0.75]


def test_coarse_gates_decide_whether_a_layer_prunes():
    """P(z > 0) = 1/2 is at logit * t of the stretched zero, not at 0."""
    half = math.log((0.1 / 1.2) / (1.1 / 1.2)) * 2 / 3
    gates = gates_with([[-LIMIT, LIMIT]] * 2, [half + 1e-3, half - 1e-3])
    assert gates.deterministic().coarse.tolist() == [1, 0]
    assert gates.keep_ratios() == [1.0, 0.5, 1.0, 1.0]


def test_coarse_on_leaves_the_decision_to_the_fine_gates():
    gates = gates_with([[LIMIT, -LIMIT]] * 2, coarse="on")
    assert [name for name, _ in gates.named_parameters()] == ["fine"]
    assert set(gates.state_dict()) == {"fine", "coarse"}
    assert gates.sample().coarse.tolist() == gates.deterministic().coarse.tolist() == [1, 1]
    torch.testing.assert_close(gates.keep_probability(), open_probability(gates.fine).mean(dim=1))
    assert gates.keep_ratios() == [1.0, 0.5, 1.0, 0.5]


def test_all_bins_off_leave_the_first_token():
    gates = gates_with([[-LIMIT] * 10, [LIMIT] * 10], coarse="on")
    config = PruningConfig.top(gates.keep_ratios())
    assert gates.deterministic().fine[0].sum() == 0
    for count_first in (True, False):
        kept, _ = ops.keep_topk(torch.rand(70), bounds(50, 20), config.values[1], count_first=count_first)
        assert kept.tolist() == [0, 50]


@pytest.mark.parametrize("off", range(1, 10))
def test_exported_ratios_keep_what_the_gates_keep(off):
    """Of the tokens past the first; where it is counted the same ratio keeps as many or one fewer."""
    gates = gates_with([[LIMIT] * (10 - off) + [-LIMIT] * off] * 2, coarse="on")
    ratio, fine = gates.keep_ratios()[1], gates.deterministic().fine[0]
    for length in range(2, 60):
        scores, cu_seqlens = torch.rand(length), bounds(length)
        gated = rank_weights(scores, torch.ones(length, dtype=torch.bool), cu_seqlens, fine, torch.tensor(1.0))
        kept, _ = ops.keep_topk(scores, cu_seqlens, ratio, count_first=False)
        assert torch.equal(kept.long(), gated.nonzero().flatten())
        counted, _ = ops.keep_topk(scores, cu_seqlens, ratio)
        assert 0 <= len(kept) - len(counted) <= 1 and set(counted.tolist()) <= set(kept.tolist())


@pytest.mark.parametrize("bins", [1, 3, 10])
def test_rank_bins(bins):
    cu_seqlens = bounds(9, 0, 1, 40, 2)
    scores, alive = torch.randint(6, (52,)).float(), torch.rand(52) < 0.8
    alive[cu_seqlens[:-1][cu_seqlens.diff() > 0]] = True
    expected = torch.full((52,), -1)
    for rows in rows_of(cu_seqlens):
        candidates = alive[rows].tolist()
        candidates[:1] = [False] * len(candidates[:1])
        order = ranked(scores[rows].tolist(), candidates)
        for rank, row in enumerate(order):
            expected[rows.start + row] = rank * bins // len(order)
    assert torch.equal(rank_bins(scores, alive, cu_seqlens, bins), expected)


def test_rank_bins_are_exact_where_floating_point_is_not():
    """7 / 25 * 100 is 28.000000000000004, 29 / 100 * 100 is 28.999999999999996."""
    scores = -torch.arange(101.0)
    bins = rank_bins(scores, torch.ones(101, dtype=torch.bool), bounds(101), 100)
    assert bins.tolist() == [-1, *range(100)]


def test_rank_weights_by_hand():
    """Text one: [CLS], then ranks 1, 0 and a dead token; text two: [CLS] and two tokens that tie."""
    scores = torch.tensor([0.9, 0.1, 0.2, 0.8, 0.0, 0.5, 0.5])
    alive = torch.tensor([True, True, True, False, True, True, True])
    weights = rank_weights(scores, alive, bounds(4, 3), torch.tensor([1.0, 0.25]), torch.tensor(0.5))
    assert weights.tolist() == [1.0, 0.625, 1.0, 0.0, 1.0, 1.0, 0.625]


def test_rank_weights_gradients():
    scores, alive, cu_seqlens = torch.rand(12), torch.rand(12) < 0.9, bounds(5, 7)
    fine, coarse = (torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in ((3,), ()))
    assert torch.autograd.gradcheck(lambda f, c: rank_weights(scores, alive, cu_seqlens, f, c), (fine, coarse))


EVERY = torch.ones(3, dtype=torch.bool)
BAD = {
    "layer 0": ("layers", lambda: RankGates(4, [0, 1])),
    "past the end": ("layers", lambda: RankGates(4, [1, 4])),
    "not ascending": ("layers", lambda: RankGates(4, [2, 2])),
    "none": ("layers", lambda: RankGates(4, [])),
    "no bins": ("bins", lambda: RankGates(4, [1], bins=0)),
    "coarse": ("coarse must be one of 'learned', 'on', got 'off'", lambda: RankGates(4, [1], coarse="off")),
    "no rank bins": ("bins", lambda: rank_bins(torch.rand(3), EVERY, bounds(3), 0)),
    "bounds": ("cu_seqlens", lambda: rank_bins(torch.rand(3), EVERY, bounds(2), 2)),
    "all layers": ("fine_z", lambda: rank_weights(torch.rand(3), EVERY, bounds(3), torch.rand(2, 2), torch.tensor(1.0))),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case):
    named, call = BAD[case]
    with pytest.raises(ValueError, match=named):
        call()
