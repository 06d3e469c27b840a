"""The oracle checked against Hugging Face's own modules and against hand-worked decisions; the package plays no part."""

import copy

import pytest
import torch
from transformers import BertModel

from ..oracle import Pruning, decide_text, decisions_from_importance, gap_thresholds, oracle_forward
from .helpers import encode, make_pruning, one_thread, oracle64, random_batch, random_bert, repad, text_error

NAN = float("nan")


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def dense(model, ids, mask):
    with torch.no_grad():
        return model(ids, attention_mask=mask, output_hidden_states=True)


def test_unpruned_oracle_is_hugging_face(minilm, tokenizer):
    ids, mask = encode(tokenizer, ["Yes.", "The lamp is broken.", "Take the 7:45 train; the later one is slow."])
    theirs, ours = dense(minilm, ids, mask), oracle_forward(minilm, ids, mask)
    assert text_error(ours.last_hidden_state, theirs.last_hidden_state, mask) < 1e-6
    assert text_error(ours.pooler_output, theirs.pooler_output) < 1e-6
    for layer_ours, layer_theirs in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        assert text_error(layer_ours, layer_theirs, mask) < 1e-6


def test_unpruned_oracle_is_hugging_face_in_float64():
    model = random_bert(num_attention_heads=4).double()
    ids, mask = random_batch((16, 1, 7, 48))
    theirs, ours = dense(model, ids, mask), oracle_forward(model, ids, mask)
    assert ours.last_hidden_state.dtype == torch.float64
    assert text_error(ours.last_hidden_state, theirs.last_hidden_state, mask) < 1e-12


def test_importance_is_the_column_mean_of_hugging_face_attentions():
    model = random_bert()
    eager = BertModel._from_config(model.config, attn_implementation="eager").eval()
    eager.load_state_dict(model.state_dict())
    ids, mask = random_batch((16, 1, 7, 48))
    with torch.no_grad():
        maps = eager(ids, attention_mask=mask, output_attentions=True).attentions
    ours = oracle_forward(model, ids, mask)
    for layer, attention in enumerate(maps):
        for text, length in enumerate(mask.sum(1).tolist()):
            mean = attention[text, :, :length, :length].mean(dim=(0, 1))
            torch.testing.assert_close(ours.importance[layer, text, :length], mean, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("denominator", ["kept", "sqrt_kept", "initial", 40])
def test_importance_sums_to_alive_over_denominator(denominator):
    model = random_bert()
    ids, mask = random_batch()
    out = oracle64(model, ids, mask, Pruning("topk", (1.0, 0.5, 0.3), score_denominator=denominator))
    alive = out.kept_lengths[:-1].double()
    divisor = {"kept": alive, "sqrt_kept": alive.sqrt(), "initial": mask.sum(1), 40: torch.tensor(40)}[denominator]
    expected = alive / divisor.clamp(min=1)  # 1 per text with "kept", 0 for the empty one
    torch.testing.assert_close(out.importance.sum(-1), expected, rtol=1e-12, atol=1e-12)
    assert not out.importance[~out.kept_mask[:-1]].any()


def removed(model, ids, position, kept):
    """One text (1, n) run through Hugging Face's modules with the tokens really gathered away; the final (n, H) states."""
    places = torch.arange(ids.shape[1])
    x = model.embeddings(ids, position_ids=places[None])
    states = x[0].clone()
    for index, layer in enumerate(model.encoder.layer):
        if position == "before_layer":
            x = x[:, torch.isin(places, kept[index])]
            places = kept[index]
            x = layer(x, None)
        else:
            stay = torch.isin(places, kept[index + 1])
            context = layer.attention.self(x, None)[0]
            x = layer.feed_forward_chunk(layer.attention.output(context[:, stay], x[:, stay]))
            places = kept[index + 1]
        states[places] = x[0]
    return states


@pytest.mark.parametrize("position", ["after_attention", "before_layer"])
@pytest.mark.parametrize("criterion", ["threshold", "topk"])
def test_masking_equals_removing(position, criterion):
    model = random_bert(num_hidden_layers=4).double()
    ids, mask = random_batch((16, 1, 7, 48))
    pruning = make_pruning(model, ids, mask, criterion, position=position)
    out = oracle64(model, ids, mask, pruning)
    assert (out.kept_lengths[-1] < out.kept_lengths[0]).any()
    for text, length in enumerate(mask.sum(1).tolist()):
        kept = [row[text].nonzero().flatten() for row in out.kept_mask]
        with torch.no_grad():
            expected = removed(model, ids[text : text + 1, :length], position, kept)
        torch.testing.assert_close(out.last_hidden_state[text, :length], expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("position", ["after_attention", "before_layer"])
def test_rows_of_the_outputs_agree_with_each_other(position):
    model = random_bert()
    ids, mask = random_batch()
    out = oracle64(model, ids, mask, make_pruning(model, ids, mask, position=position))
    assert torch.equal(out.kept_mask[0], mask.bool())
    assert torch.equal(out.hidden_states[-1], out.last_hidden_state)
    assert not (out.kept_mask[1:] & ~out.kept_mask[:-1]).any(), "a token came back"
    if position == "before_layer":
        assert torch.equal(out.kept_mask[-1], out.kept_mask[-2])
    for layer in range(3):  # whoever is dead at layer's end has the state it entered with
        dead = ~out.kept_mask[layer + 1 if position == "after_attention" else layer]
        assert torch.equal(out.hidden_states[layer + 1][dead], out.hidden_states[layer][dead])


def test_left_and_right_padding_agree():
    model = random_bert()
    ids, mask = random_batch()
    pruning = make_pruning(model, ids, mask)
    right = oracle64(model, ids, mask, pruning)
    left = oracle64(model, *repad(ids, mask, "left", 60), pruning)
    assert torch.equal(left.kept_lengths, right.kept_lengths)
    some = mask.sum(1) > 0  # the pooled output of an empty text is its padding's affair
    torch.testing.assert_close(left.pooler_output[some], right.pooler_output[some], rtol=1e-12, atol=1e-12)


def test_forced_decisions_reproduce_a_run():
    model = random_bert()
    ids, mask = random_batch()
    pruning = make_pruning(model, ids, mask, "topk", position="before_layer")
    free = oracle64(model, ids, mask, pruning)
    forced = oracle64(model, ids, mask, pruning, forced_kept_mask=free.kept_mask)
    assert torch.equal(forced.kept_mask, free.kept_mask)
    assert torch.equal(forced.last_hidden_state, free.last_hidden_state)
    replayed, margin = decisions_from_importance(pruning, ids, mask, free.kept_mask, free.importance)
    assert torch.equal(replayed, free.kept_mask)
    assert torch.equal(margin, free.margin)


def test_gap_thresholds_leave_no_doubt_and_prune_as_asked():
    model = random_bert().double()
    ids, mask = random_batch((48,) * 8)
    thresholds = gap_thresholds(model, ids, mask, Pruning("threshold", ()), (1.0, 0.7, 0.5))
    out = oracle64(model, ids, mask, Pruning("threshold", thresholds))
    assert thresholds[0] == 0.0
    assert out.margin.min() > 1e-4
    shares = out.kept_lengths[1:].sum(1) / out.kept_lengths[:-1].sum(1)
    torch.testing.assert_close(shares, torch.tensor([1.0, 0.7, 0.5]), rtol=0, atol=0.08)


# scores, protected positions, protect_first, kept positions
THRESHOLD_CASES = {
    "at the threshold stays": ((0.25, 0.5, 0.25), (), False, (0, 1, 2)),
    "below goes": ((0.1, 0.5, 0.4), (), False, (1, 2)),
    "first is protected": ((0.1, 0.5, 0.4), (), True, (0, 1, 2)),
    "others can be protected": ((0.1, 0.8, 0.1), (2,), False, (1, 2)),
    "at least one": ((0.1, 0.2, 0.15), (), False, (1,)),
    "at least one, tie to the lower position": ((0.1, 0.2, 0.2), (), False, (1,)),
    "a protected token suffices": ((0.1, 0.2, 0.2), (0,), False, (0,)),
    "NaN stays": ((0.1, NAN, 0.3), (), False, (1, 2)),
}


@pytest.mark.parametrize("case", THRESHOLD_CASES)
def test_threshold_rule(case):
    scores, protected, first, kept = THRESHOLD_CASES[case]
    assert decide(scores, protected, Pruning("threshold", (), protect_first=first), 0.25) == kept


# scores, ratio, protected positions, protect_first, kept positions
TOPK_CASES = {
    "the highest": ((0.1, 0.4, 0.2, 0.3), 0.5, (), False, (1, 3)),
    "first counts towards k": ((0.1, 0.4, 0.2, 0.3), 0.5, (), True, (0, 1)),
    "rounded up": ((0.1, 0.4, 0.2, 0.3), 0.51, (), False, (1, 2, 3)),
    "0.1 * 30 is 3, not 4": (tuple(range(30)), 0.1, (), False, (27, 28, 29)),
    "ties to the lower position": ((0.25, 0.25, 0.25, 0.25), 0.5, (), False, (0, 1)),
    "at least one": ((0.1, 0.4, 0.2, 0.3), 0.01, (), False, (1,)),
    "more protected than k: all stay": ((0.1, 0.4, 0.2, 0.3), 0.25, (2, 3), True, (0, 2, 3)),
    "NaN stays and counts": ((0.1, 0.4, NAN, 0.3), 0.5, (), False, (1, 2)),
    "ratio 1": ((0.1, 0.4, 0.2), 1.0, (), False, (0, 1, 2)),
}


@pytest.mark.parametrize("case", TOPK_CASES)
def test_topk_rule(case):
    scores, ratio, protected, first, kept = TOPK_CASES[case]
    assert decide(scores, protected, Pruning("topk", (), protect_first=first), ratio) == kept


def decide(scores, protected, pruning, value):
    mask = torch.zeros(len(scores), dtype=torch.bool)
    mask[list(protected)] = True
    keep, _ = decide_text(torch.tensor(scores, dtype=torch.float64), mask, pruning, value)
    return tuple(keep.nonzero().flatten().tolist())


def test_margin_is_the_distance_to_the_decision():
    scores, nobody = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64), torch.zeros(4, dtype=torch.bool)
    _, margin = decide_text(scores, nobody, Pruning("threshold", (), protect_first=False), 0.25)
    assert margin == pytest.approx(0.2)
    _, margin = decide_text(scores, nobody, Pruning("topk", (), protect_first=False), 0.5)
    assert margin == pytest.approx(1 / 3)


def test_gradients_flow_through_the_oracle():
    model = copy.deepcopy(random_bert()).double()
    ids, mask = random_batch()
    oracle_forward(model, ids, mask, Pruning("topk", (1.0, 0.5, 0.5))).last_hidden_state.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for n, p in model.named_parameters() if "pooler" not in n)
