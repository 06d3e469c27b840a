"""Masks on hidden states, as the papers' code has them: every layer's output is multiplied once, by that layer's own mask."""

import math

import pytest
import torch
from tokprune_train.objectives.cost import FlopsCost
from tokprune_train.objectives.gates import GateSample, RankGates
from tokprune_train.pruners.base import Constraint
from tokprune_train.pruners.ltp import LearnedThresholds
from tokprune_train.pruners.top import LearnedKeepRatios

from .naive import bounds
from .needles import tiny_model

# [CLS] and four others, ranked 4 1 2 3 by the first layer's importance.
FIRST = torch.tensor([0.0, 0.5, 0.1, 0.2, 0.4])
SECOND = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4])


def ratios(masks, fine, coarse=(1.0, 1.0)):
    gates = RankGates(3, [1, 2], bins=2)
    pruner = LearnedKeepRatios(gates, Constraint(FlopsCost(tiny_model().config, "before_layer"), 0.4), masks=masks)
    pruner._sample = GateSample(torch.tensor(fine), torch.tensor(coarse))
    return pruner


def test_top_by_hand():
    """(1 - (1 - z) p) [previous > 0]: not times the earlier weight, and a token that has gone to 0 stays there, out of the ranking.

    Layer 1's bins let 0.8 and 0 pass: ranks 0 and 1 are tokens 1 and 4. Layer 2 ranks those two alone, token 4 first.
    """
    pruner, cu_seqlens = ratios("hidden", [[0.8, 0.0], [1.0, 0.5]]), bounds(5)
    one = pruner(0, FIRST, torch.ones(5), cu_seqlens)
    assert one.tolist() == pytest.approx([1.0, 0.8, 0.0, 0.0, 0.8])
    two = pruner(1, SECOND, one, cu_seqlens)
    assert two.tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0, 1.0])
    assert pruner(2, SECOND, two, cu_seqlens) is None, "after the last layer nothing is pruned"


def test_top_with_a_coarse_gate_by_hand():
    """p = 0 lets all pass that are still there; 1 - (1 - 0.6) * 0.5 = 0.8."""
    cu_seqlens, before = bounds(5), torch.tensor([1.0, 0.3, 0.0, 0.2, 0.9])
    off = ratios("hidden", [[0.6, 0.0], [0.0, 0.0]], (0.0, 0.5))(0, FIRST, before, cu_seqlens)
    assert off.tolist() == [1.0, 1.0, 0.0, 1.0, 1.0]
    half = ratios("hidden", [[0.6, 0.0], [0.0, 0.0]], (0.5, 0.5))(0, FIRST, before, cu_seqlens)
    assert half.tolist() == pytest.approx([1.0, 0.8, 0.0, 0.5, 0.8])


def test_top_in_attention_counts_all_so_far():
    pruner, cu_seqlens = ratios("attention", [[0.8, 0.0], [1.0, 0.5]]), bounds(5)
    one = pruner(0, FIRST, torch.ones(5), cu_seqlens)
    assert pruner(1, SECOND, one, cu_seqlens).tolist() == pytest.approx([1.0, 0.4, 0.0, 0.0, 0.8])


def test_ltp_by_hand():
    """M_l = sigmoid((s - theta_l) / T), whatever the mask of the layer before."""
    pruner = LearnedThresholds([0.2, 0.3], unit=1.0, temperature=(0.1, 0.1), masks="hidden", protect_first=False)
    pruner.begin(0, 0.0)
    mask = pruner(1, torch.tensor([0.3, 0.4, 0.1]), torch.tensor([0.0, 0.5, 1.0]), bounds(3))
    assert mask.tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2))])


def test_the_model_multiplies_once():
    """ToP's soft forward, written out: hidden states times a layer's own policy, attention over all tokens."""
    model, pruner = tiny_model(), ratios("hidden", [[0.8, 0.1], [0.9, 0.5]])
    ids = torch.tensor([[1, 5, 9, 7, 3, 8, 4]])
    seen = []
    forward = pruner.forward
    pruner.forward = lambda layer, importance, *rest: seen.append(importance) or forward(layer, importance, *rest)
    with torch.no_grad():
        logits = model(ids, attention_mask=torch.ones_like(ids), soft_pruning=pruner).logits
    base = model.base_model
    with torch.no_grad():
        x, alive = base.embeddings(input_ids=ids), torch.ones(7, dtype=torch.bool)
        for number, layer in enumerate(base.encoder.layer):
            module = layer.attention.self
            query, key, value = (
                project(x)[0].unflatten(1, (module.num_attention_heads, -1)).transpose(0, 1)
                for project in (module.query, module.key, module.value)
            )
            probabilities = (query @ key.transpose(1, 2) / math.sqrt(query.shape[2])).softmax(dim=-1)
            attended = layer.attention.output((probabilities @ value).transpose(0, 1).flatten(1)[None], x)
            x = layer.output(layer.intermediate(attended), attended)
            score = probabilities.mean(dim=(0, 1))
            torch.testing.assert_close(seen[number], score, rtol=1e-4, atol=1e-6)
            if number < 2:
                policy = torch.ones(7)
                others = [token for token in range(1, 7) if alive[token]]
                for rank, token in enumerate(sorted(others, key=lambda i: -float(score[i]))):
                    policy[token] = pruner._sample.fine[number][rank * 2 // len(others)]
                policy[~alive] = 0.0
                x, alive = x * policy[:, None], policy > 0
        expected = model.classifier(base.pooler(x))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
