"""The package against the masked oracle: the same tokens kept, the same importance, the same states.

Errors are `text_error`: max |a - b| / max |b| within each text, the largest over texts. The oracle runs in float64 on the
same weights; thresholds lie in gaps of its scores, so that kept sets are compared without exemption (for ratios, a text
with two scores closer than 1e-5 at the cut is left out; at most a tenth of a batch may be).
"""

import copy
import functools
from dataclasses import replace

import pytest
import tokprune_kernels as tk
import torch

from .. import texts
from ..oracle import Pruning
from .helpers import (
    assert_follows_own_importance,
    assert_matches,
    encode,
    make_pruning,
    oracle64,
    pruned_copy,
    random_batch,
    random_bert,
    repad,
    run,
    text_error,
)

FLOAT32, BFLOAT16 = 1e-5, 2e-2
POSITIONS, CRITERIA = ("after_attention", "before_layer"), ("threshold", "topk")

# head widths 32, 64, 16, 40, 96, and 20, which no compiled kernel takes; hidden and FFN sizes on and off the multiples
# of 64; every fused activation and one that is not
SHAPES = {
    "d32": {},
    "d64-gelu_new": {"hidden_size": 128, "hidden_act": "gelu_new", "num_hidden_layers": 4},
    "d16-relu": {"num_attention_heads": 4, "hidden_act": "relu", "intermediate_size": 100},
    "d40-silu": {"hidden_size": 120, "num_attention_heads": 3, "hidden_act": "silu", "intermediate_size": 250},
    "d96-two-layers": {"hidden_size": 96, "num_attention_heads": 1, "num_hidden_layers": 2, "intermediate_size": 192},
    "d20": {"hidden_size": 60, "num_attention_heads": 3, "intermediate_size": 240},
    "d64-wide": {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 520},
}


@pytest.fixture(params=POSITIONS)
def position(request):
    return request.param


@pytest.fixture(params=CRITERIA)
def criterion(request):
    return request.param


@pytest.mark.parametrize("gradients", [False, True], ids=["no_grad", "grad"])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape, position, criterion, gradients):
    model = random_bert(**SHAPES[shape])
    ids, mask = random_batch()
    pruning = make_pruning(model, ids, mask, criterion, position=position)
    out = run(pruned_copy(tk, model, pruning), ids, mask, gradients)
    expected = oracle64(model, ids, mask, pruning)
    assert (expected.kept_lengths[-1] < expected.kept_lengths[0]).sum() >= 3, "the test must prune"
    assert_matches(out, expected, FLOAT32)
    assert_follows_own_importance(out, ids, mask, pruning)


@pytest.mark.parametrize("denominator", ["kept", "sqrt_kept", "initial", 64])
@pytest.mark.parametrize("protect_first", [True, False], ids=["first_protected", "first_free"])
@pytest.mark.parametrize("protected", [(), (3, 5, 8, 13)], ids=["no_ids", "ids"])
def test_options(position, criterion, denominator, protect_first, protected):
    model = random_bert(num_hidden_layers=4)
    ids, mask = random_batch((21, 0, 1, 2, 33, 21, 21, 48), seed=1)
    pruning = make_pruning(
        model,
        ids,
        mask,
        criterion,
        position=position,
        score_denominator=denominator,
        protect_first=protect_first,
        protected_token_ids=protected,
    )
    expected = oracle64(model, ids, mask, pruning)
    out = run(pruned_copy(tk, model, pruning), ids, mask)
    assert_matches(out, expected, FLOAT32)
    assert_follows_own_importance(out, ids, mask, pruning)
    if protected:
        stays = torch.isin(ids, torch.tensor(protected)) & mask.bool()
        assert stays.any()
        assert out.pruning.kept_mask[-1][stays].all()


@pytest.mark.parametrize("protected", [(), (3, 5, 8, 13)], ids=["no_ids", "ids"])
def test_ratios_past_the_first_token(position, protected):
    """1 + ceil(ratio * (n - 1)) of n tokens stay, and not as many as where the first is counted."""
    model = random_bert(num_hidden_layers=4)
    ids, mask = random_batch((21, 0, 1, 2, 33, 21, 20, 48), seed=1)
    pruning = make_pruning(model, ids, mask, "topk", position=position, protected_token_ids=protected, count_first=False)
    expected = oracle64(model, ids, mask, pruning)
    out = run(pruned_copy(tk, model, pruning), ids, mask)
    assert_matches(out, expected, FLOAT32)
    assert_follows_own_importance(out, ids, mask, pruning)
    counted = oracle64(model, ids, mask, replace(pruning, count_first=True))
    assert (expected.kept_lengths >= counted.kept_lengths).all()
    assert not torch.equal(expected.kept_lengths, counted.kept_lengths)


@pytest.mark.parametrize("protect_first", [True, False], ids=["first_protected", "first_free"])
def test_nothing_passes_the_threshold(position, protect_first):
    """One token stays per text: the first, or, with nobody protected, the one of highest importance."""
    model = random_bert()
    ids, mask = random_batch()
    pruning = Pruning("threshold", (0.0, 50.0, 0.0), position=position, protect_first=protect_first)
    out = run(pruned_copy(tk, model, pruning), ids, mask)
    assert_matches(out, oracle64(model, ids, mask, pruning), FLOAT32)
    assert torch.equal(out.pruning.kept_lengths[-1], (mask.sum(1) > 0).long())


def test_ties_go_to_the_lower_position(position):
    """With zero queries attention is uniform and every score of a text is the same number."""
    model = random_bert()
    with torch.no_grad():
        for layer in model.encoder.layer:
            layer.attention.self.query.weight.zero_()
            layer.attention.self.query.bias.zero_()
    ids, mask = random_batch()
    pruning = Pruning("topk", (1.0, 0.5, 0.5), position=position, protect_first=False)
    kept = run(pruned_copy(tk, model, pruning), ids, mask).pruning.kept_mask
    expected = oracle64(model, ids, mask, pruning).kept_lengths
    for layer in range(4):
        first = torch.arange(ids.shape[1]) < expected[layer][:, None]
        assert torch.equal(kept[layer], first)


def test_nan_importance_keeps_the_token(position, criterion):
    """Weights gone NaN must not delete tokens: everything of the texts concerned stays."""
    model = random_bert()
    with torch.no_grad():
        model.encoder.layer[0].attention.self.key.weight[0, 0] = float("nan")
    ids, mask = random_batch()
    value = 0.5 if criterion == "topk" else 50.0
    pruning = Pruning(criterion, (1.0 if criterion == "topk" else 0.0, value, value), position=position)
    out = run(pruned_copy(tk, model, pruning), ids, mask)
    assert torch.equal(out.pruning.kept_mask, mask.bool().expand(4, -1, -1))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("own_positions", [False, True], ids=["", "own_positions"])
def test_token_types_and_positions_follow_their_tokens(position, side, own_positions):
    model = random_bert()
    ids, mask = repad(*random_batch(), side, 56)
    options = {"token_type_ids": torch.randint(0, 2, ids.shape)}
    if own_positions:
        options["position_ids"] = torch.randint(0, 64, ids.shape)
    pruning = Pruning("topk", (1.0, 0.6, 0.5), position=position)
    out = run(pruned_copy(tk, model, pruning), ids, mask, **options)
    assert_matches(out, oracle64(model, ids, mask, pruning, **options), FLOAT32)


def test_float64_model(position, criterion):
    """A float64 model takes the plain route; both programs then agree to float64 rounding."""
    model = random_bert(num_hidden_layers=4).double()
    ids, mask = random_batch()
    pruning = make_pruning(model, ids, mask, criterion, position=position)
    out = run(pruned_copy(tk, model, pruning), ids, mask)
    expected = oracle64(model, ids, mask, pruning)
    assert out.last_hidden_state.dtype == torch.float64
    assert torch.equal(out.pruning.kept_mask, expected.kept_mask)
    assert text_error(out.last_hidden_state, expected.last_hidden_state) <= 1e-12
    assert text_error(out.pooler_output[mask.sum(1) > 0], expected.pooler_output[mask.sum(1) > 0]) <= 1e-12


@pytest.fixture(scope="module")
def minilm_answers(minilm, tokenizer):
    """(criterion, position) -> ids, mask, pruning, what the oracle makes of them; each worked out once."""
    ids, mask = encode(tokenizer, texts.batch_of_texts(20), max_length=64)
    mask[5] = 0  # an empty row among them

    @functools.cache
    def answer(criterion, position):
        pruning = make_pruning(minilm, ids, mask, criterion, position=position, protected_token_ids=(102,))
        return ids, mask, pruning, oracle64(minilm, ids, mask, pruning)

    return answer


@pytest.mark.parametrize("gradients", [False, True], ids=["no_grad", "grad"])
def test_minilm_on_real_text(minilm, minilm_answers, position, criterion, gradients):
    ids, mask, pruning, expected = minilm_answers(criterion, position)
    out = run(pruned_copy(tk, minilm, pruning), ids, mask, gradients)
    assert_matches(out, expected, FLOAT32)
    assert_follows_own_importance(out, ids, mask, pruning)


def test_minilm_at_its_maximal_length(minilm, tokenizer, position):
    ids, mask = encode(tokenizer, [texts.longest_text(), "Rain again."])
    assert mask.sum(1).tolist() == [512, 5]
    pruning = make_pruning(minilm, ids, mask, position=position)
    assert_matches(run(pruned_copy(tk, minilm, pruning), ids, mask), oracle64(minilm, ids, mask, pruning), FLOAT32)


# bfloat16. Rounding to 8 bits moves scores by more than the gaps between them, so two correct programs keep different
# tokens, and states after different decisions differ by far more than rounding. The comparison is therefore split into
# three that are each strict: (1) the decisions follow, exactly, from the importance the model itself reports; (2) the
# oracle, in float64 on the same bfloat16-rounded weights and *forced to the model's own kept sets*, gives the same
# importance and states to 2e-2; (3) at the first pruning layer, where nothing has diverged yet, every token whose score
# lies further from the threshold than the error allowed in (2) is decided as the free oracle decides it.
@pytest.mark.parametrize(
    ("source", "gradients"), [("minilm", False), ("d32", False), ("d32", True), ("d64-wide", False), ("d20", False)]
)
def test_bfloat16(request, source, gradients, position, criterion):
    model, ids, mask = bfloat16_case(request, source)
    pruning = make_pruning(model.float(), ids, mask, criterion, position=position)
    model = model.bfloat16()
    out = run(pruned_copy(tk, model, pruning), ids, mask, gradients)
    assert out.last_hidden_state.dtype == torch.bfloat16
    assert out.pruning.importance.dtype == torch.float32

    assert_follows_own_importance(out, ids, mask, pruning)
    forced = oracle64(model, ids, mask, pruning, forced_kept_mask=out.pruning.kept_mask)
    for ours, theirs in zip(out.pruning.importance, forced.importance):
        assert text_error(ours, theirs) <= BFLOAT16
    assert text_error(out.last_hidden_state, forced.last_hidden_state) <= BFLOAT16
    # The pooler is Hugging Face's module and rounds by itself (2.3e-2 on these random weights): it must have got our states.
    with torch.no_grad():
        assert text_error(out.pooler_output, model.pooler(out.last_hidden_state)) <= 1e-6
    if criterion == "threshold":
        assert_first_decision(out, oracle64(model, ids, mask, pruning), pruning)


def bfloat16_case(request, source):
    """A model whose weights are bfloat16 numbers, and a batch for it."""
    if source != "minilm":
        return random_bert(**SHAPES[source]).bfloat16(), *random_batch()
    ids, mask = encode(request.getfixturevalue("tokenizer"), texts.batch_of_texts(14), max_length=48)
    return copy.deepcopy(request.getfixturevalue("minilm")).bfloat16(), ids, mask


def assert_first_decision(out, expected, pruning):
    layer = next(index for index, value in enumerate(pruning.values) if value > 0)
    scored = layer if pruning.position == "after_attention" else layer - 1
    row = layer + 1 if pruning.position == "after_attention" else layer
    scores = expected.importance[scored]
    allowed = BFLOAT16 * scores.amax(dim=-1, keepdim=True)
    clear = (scores - pruning.values[layer]).abs() > allowed
    assert clear[expected.kept_mask[scored]].double().mean() > 0.3, "hardly any token is compared"
    assert torch.equal(out.pruning.kept_mask[row][clear], expected.kept_mask[row][clear])
