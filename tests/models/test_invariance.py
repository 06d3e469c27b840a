"""The same text gives the same kept tokens and the same output alone or in any batch, at any padding side or width.

And with nothing pruned the model is Hugging Face's.
"""

import pytest
import tokprune_kernels as tk
import torch

from .. import texts
from ..oracle import Pruning, decisions_from_importance
from .helpers import encode, pruned_copy, random_batch, random_bert, repad, run, text_error

TOLERANCE = 1e-5


def live_rows(tensor, mask, text):
    """The values of one text at its live positions, in order: comparable across paddings."""
    return tensor[text][mask[text] != 0]


def assert_same_texts(one, one_mask, two, two_mask, pairs):
    """Texts (a, b) of two runs: identical kept tokens, outputs within TOLERANCE relative."""
    for a, b in pairs:
        for layer in range(len(one.pruning.kept_mask)):
            kept = live_rows(one.pruning.kept_mask[layer], one_mask, a)
            assert torch.equal(kept, live_rows(two.pruning.kept_mask[layer], two_mask, b))
        for name in ("last_hidden_state", "pooler_output"):
            x, y = getattr(one, name), getattr(two, name)
            if name == "last_hidden_state":
                x, y = live_rows(x, one_mask, a)[None], live_rows(y, two_mask, b)[None]
            else:
                x, y = x[a : a + 1], y[b : b + 1]
            assert text_error(x, y) <= TOLERANCE


class Case:
    """A pruned model, a batch of 64 texts and what the model makes of it; `texts` are those whose decisions are clear.

    A text with a score within 1e-5 relative of the decision may be decided either way, and is left out.
    """

    def __init__(self, model, ids, mask, pruning):
        self.model, self.ids, self.mask = pruned_copy(tk, model, pruning), ids, mask
        self.out = run(self.model, ids, mask)
        reported = self.out.pruning
        lost = reported.kept_lengths[-1] < reported.kept_lengths[0]
        assert lost.double().mean() > 0.7, "most texts must lose tokens"
        _, margin = decisions_from_importance(pruning, ids, mask, reported.kept_mask, reported.importance)
        self.texts = (margin > 1e-5).all(dim=0).nonzero().flatten().tolist()
        assert len(self.texts) >= 60, "nearly all texts must be decided beyond rounding"

    def assert_same(self, out, mask, order=None):
        """`out` is this batch again, padded differently; its text order[i] (or i) is text i here."""
        order = range(64) if order is None else order
        assert_same_texts(self.out, self.mask, out, mask, [(text, order[text]) for text in self.texts])


MINILM = {
    "threshold-after_attention": Pruning("threshold", (0.01, 0.02, 0.03, 0.04, 0.05, 0.06)),
    "threshold-before_layer": Pruning("threshold", (0.0, 0.02, 0.03, 0.04, 0.05, 0.06), position="before_layer"),
    "topk-before_layer": Pruning("topk", (1.0, 0.9, 0.8, 0.7, 0.6, 0.5), position="before_layer"),
}
RANDOM = {
    "random-threshold": Pruning("threshold", (0.01, 0.02, 0.04)),
    "random-topk": Pruning("topk", (0.8, 0.7, 0.6)),
}


@pytest.fixture(scope="module", params=[*MINILM, *RANDOM])
def case(request):
    if request.param in RANDOM:
        lengths = [1 + (11 * index) % 48 for index in range(64)]
        return Case(random_bert(), *random_batch(lengths), RANDOM[request.param])
    minilm, tokenizer = request.getfixturevalue("minilm"), request.getfixturevalue("tokenizer")
    return Case(minilm, *encode(tokenizer, texts.batch_of_texts(64), max_length=128), MINILM[request.param])


def test_alone_and_in_a_batch_of_64(case):
    for text in case.texts[::5]:
        live = case.mask[text] != 0
        ids, mask = case.ids[text : text + 1, live], case.mask[text : text + 1, live]
        assert_same_texts(case.out, case.mask, run(case.model, ids, mask), mask, [(text, 0)])


def test_alone_without_a_mask(case):
    for text in case.texts[3::30]:
        ids = case.ids[text : text + 1, case.mask[text] != 0]
        out = run(case.model, ids, None)
        assert_same_texts(case.out, case.mask, out, torch.ones_like(ids), [(text, 0)])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("extra", [0, 16])
def test_padding_side_and_width(case, side, extra):
    ids, mask = repad(case.ids, case.mask, side, case.ids.shape[1] + extra)
    out = run(case.model, ids, mask)
    case.assert_same(out, mask)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", MINILM, indirect=True)
def test_padded_to_512(case, side):
    ids, mask = repad(case.ids, case.mask, side, 512)
    out = run(case.model, ids, mask)
    assert out.last_hidden_state.shape[1] == 512
    case.assert_same(out, mask)


def test_padding_inside_a_text(case):
    """Holes in the mask are padding like any other: only the order of the live tokens counts."""
    length = case.ids.shape[1]
    places = torch.arange(length) * 2
    ids, mask = torch.ones(64, 2 * length, dtype=case.ids.dtype), torch.zeros(64, 2 * length, dtype=case.mask.dtype)
    ids[:, places], mask[:, places] = case.ids, case.mask
    out = run(case.model, ids, mask)
    case.assert_same(out, mask)


def test_order_of_the_batch(case):
    order = torch.randperm(64)
    out = run(case.model, case.ids[order], case.mask[order])
    case.assert_same(out, case.mask[order], order.argsort().tolist())


def test_what_stands_at_padding_does_not_matter(case):
    ids = torch.where(case.mask != 0, case.ids, (case.ids + 7) % 90)
    out = run(case.model, ids, case.mask)
    assert torch.equal(out.last_hidden_state, case.out.last_hidden_state)
    assert torch.equal(out.pruning.kept_mask, case.out.pruning.kept_mask)


def test_a_repeat_is_the_same_to_the_bit(case):
    again = run(case.model, case.ids, case.mask)
    assert torch.equal(again.last_hidden_state, case.out.last_hidden_state)
    assert torch.equal(again.pruning.importance, case.out.pruning.importance)


def test_number_of_threads_does_not_matter(case):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if threads == 1 else 1)
        out = run(case.model, case.ids, case.mask)
    finally:
        torch.set_num_threads(threads)
    case.assert_same(out, case.mask)


def test_sst2_sentences(minilm, tokenizer):
    rows = texts.load_rows("sst2", "validation", 64)
    case = Case(minilm, *encode(tokenizer, [row["text"] for row in rows]), MINILM["threshold-after_attention"])
    ids, mask = repad(case.ids, case.mask, "left", 128)
    out = run(case.model, ids, mask)
    case.assert_same(out, mask)


NOTHING = {
    "dense": None,
    "threshold 0": Pruning("threshold", (0.0,) * 6),
    "threshold 0 before_layer": Pruning("threshold", (0.0,) * 6, position="before_layer"),
    "threshold -1": Pruning("threshold", (-1.0,) * 6, protect_first=False),
    "ratio 1": Pruning("topk", (1.0,) * 6, position="before_layer"),
    "ratio 1 after_attention": Pruning("topk", (1.0,) * 6, protect_first=False),
}


@pytest.fixture(scope="module")
def dense_minilm(minilm, tokenizer):
    """(ids, mask, what Hugging Face makes of them)."""
    ids, mask = encode(tokenizer, texts.batch_of_texts(14), max_length=96)
    with torch.no_grad():
        return ids, mask, minilm(ids, attention_mask=mask, output_hidden_states=True)


@pytest.mark.parametrize("pruning", NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize("gradients", [False, True], ids=["no_grad", "grad"])
def test_nothing_pruned_is_hugging_face(minilm, dense_minilm, pruning, gradients):
    ids, mask, theirs = dense_minilm
    ours = run(pruned_copy(tk, minilm, pruning), ids, mask, gradients, output_hidden_states=True)
    assert torch.equal(ours.pruning.kept_mask, mask.bool().expand(7, -1, -1))
    assert text_error(ours.last_hidden_state, theirs.last_hidden_state, mask) <= TOLERANCE
    assert text_error(ours.pooler_output, theirs.pooler_output) <= TOLERANCE
    for mine, other in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        assert text_error(mine, other, mask) <= TOLERANCE


def test_dense_with_token_types_and_own_positions():
    model = random_bert()
    ids, mask = random_batch((16, 1, 7, 48))
    types = (torch.arange(ids.shape[1]) > 5).long().expand_as(ids)
    positions = (torch.arange(ids.shape[1]) + 9).expand_as(ids) % 60
    with torch.no_grad():
        theirs = model(ids, attention_mask=mask, token_type_ids=types, position_ids=positions)
        from_embeds = model(inputs_embeds=model.embeddings.word_embeddings(ids), attention_mask=mask)
    pruned = pruned_copy(tk, model, None)
    ours = run(pruned, ids, mask, token_type_ids=types, position_ids=positions)
    assert text_error(ours.last_hidden_state, theirs.last_hidden_state, mask) <= TOLERANCE
    ours = run(pruned, ids, mask, token_type_ids=types, position_ids=positions[:1])
    assert text_error(ours.last_hidden_state, theirs.last_hidden_state, mask) <= TOLERANCE
    with torch.no_grad():
        ours = pruned(inputs_embeds=pruned.embeddings.word_embeddings(ids), attention_mask=mask)
    assert text_error(ours.last_hidden_state, from_embeds.last_hidden_state, mask) <= TOLERANCE


@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float32])
def test_dtype_of_the_mask_does_not_matter(mask_dtype):
    model = random_bert()
    ids, mask = random_batch()
    pruned = pruned_copy(tk, model, Pruning("topk", (0.8, 0.5, 0.5)))
    expected, out = run(pruned, ids, mask), run(pruned, ids, mask.to(mask_dtype))
    assert torch.equal(out.last_hidden_state, expected.last_hidden_state)
    assert torch.equal(out.pruning.kept_mask, expected.pruning.kept_mask)
