"""Model types other than BERT: the same as Hugging Face's own unpruned, the oracle's pruned, with heads on any side of the padding."""

import copy
import pickle
from typing import NamedTuple

import pytest
import tokprune_kernels as tk
import torch
import transformers
from tokprune_kernels.models.adapters import KINDS, first_position, longest_text

from ..oracle import Pruning
from .helpers import VOCABULARY, make_pruning, oracle64, pruned_copy, random_batch, random_model, repad, run, text_error

TOLERANCE = 1e-5
LENGTHS = (16, 1, 7, 48, 33)


class Type(NamedTuple):
    """prefix: of the classes.   config: what is not the default."""

    prefix: str
    config: dict = {}


TYPES = {
    "camembert": Type("Camembert"),
    "data2vec-text": Type("Data2VecText"),
    "distilbert": Type("DistilBert"),
    "electra": Type("Electra", {"embedding_size": 24}),
    "ernie": Type("Ernie", {"use_task_id": True, "task_type_vocab_size": 3}),
    "roberta": Type("Roberta"),
    "xlm-roberta": Type("XLMRoberta", {"pad_token_id": 5}),
}
HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MaskedLM")
FIRST_ONLY = HEADS[:1]


@pytest.fixture(params=TYPES)
def kind(request):
    return request.param


def of_type(kind, suffix="Model", **config):
    """A random model; the rows of its padding are not zero as they are in real ones, so that a leak of them is seen."""
    prefix, special = TYPES[kind]
    cls = getattr(transformers, prefix + suffix)
    if kind == "distilbert":  # the size that its configuration has another name for than BERT's
        special = special | {"hidden_dim": 256}
    return random_model(cls, cls.config_class, **special, **config)


def base_of(model):
    return getattr(model, model.base_model_prefix, model)


def with_berts_names(base):
    """The model itself, which the oracle can read, or a BERT of its weights."""
    if base.config.model_type != "distilbert":
        return base
    sizes = {name: getattr(base.config, name) for name in ("vocab_size", "hidden_size", "num_attention_heads", "num_hidden_layers")}
    more = {"intermediate_size": base.config.hidden_dim, "max_position_embeddings": 64}
    bert = transformers.BertModel(transformers.BertConfig(**sizes, **more), add_pooling_layer=False).eval()
    names = {
        "transformer.layer": "encoder.layer",
        "attention.q_lin": "attention.self.query",
        "attention.k_lin": "attention.self.key",
        "attention.v_lin": "attention.self.value",
        "attention.out_lin": "attention.output.dense",
        "sa_layer_norm": "attention.output.LayerNorm",
        "ffn.lin1": "intermediate.dense",
        "ffn.lin2": "output.dense",
        "output_layer_norm": "output.LayerNorm",
    }
    state = {}
    for name, value in base.state_dict().items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        state[name] = value
    missing = bert.load_state_dict(state, strict=False)
    assert missing.missing_keys == ["embeddings.token_type_embeddings.weight"] and not missing.unexpected_keys
    torch.nn.init.zeros_(bert.embeddings.token_type_embeddings.weight)
    return bert


def batch_of(model, lengths=LENGTHS):
    """Texts without the padding's id, which RoBERTa's own embeddings would not count, and with it where padding is."""
    ids, mask = random_batch(lengths)
    padding = model.config.pad_token_id
    ids = torch.where(ids == padding, VOCABULARY - 1, ids)
    return torch.where(mask != 0, ids, padding), mask


def test_every_supported_type_is_tested():
    assert {*TYPES, "bert"} == set(KINDS)


def test_unpruned_it_is_hugging_face(kind):
    plain = of_type(kind)
    assert plain.config.model_type == kind
    ids, mask = batch_of(plain)
    with torch.no_grad():
        theirs = plain(ids, attention_mask=mask, output_hidden_states=True)
    for gradients in (False, True):
        ours = run(pruned_copy(tk, plain, None), ids, mask, gradients, output_hidden_states=True)
        assert text_error(ours.last_hidden_state, theirs.last_hidden_state, mask) <= TOLERANCE
        for own, other in zip(ours.hidden_states, theirs.hidden_states, strict=True):
            assert text_error(own, other, mask) <= TOLERANCE
        if getattr(plain, "pooler", None) is not None:
            assert text_error(ours.pooler_output, theirs.pooler_output) <= TOLERANCE


@pytest.mark.parametrize("criterion", ["threshold", "topk"])
def test_pruned_it_is_the_oracle(kind, criterion):
    plain = of_type(kind)
    ids, mask = batch_of(plain, (16, 0, 1, 7, 48))
    pruning = make_pruning(with_berts_names(plain), ids, mask, criterion)
    expected = oracle64(with_berts_names(plain), ids, mask, pruning)
    out = run(pruned_copy(tk, plain, pruning), ids, mask)
    assert torch.equal(out.pruning.kept_mask, expected.kept_mask) and not bool(out.pruning.kept_mask[-1].equal(mask.bool()))
    assert text_error(out.last_hidden_state, expected.last_hidden_state) <= TOLERANCE
    for own, other in zip(out.pruning.importance, expected.importance, strict=True):
        assert text_error(own, other) <= TOLERANCE


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("hidden", [False, True], ids=["", "hidden_states"])
def test_heads_unpruned(kind, head, hidden):
    """On the left side of the padding, too, where Hugging Face would read the padding: as on the right."""
    plain = of_type(kind, f"For{head}")
    ids, mask = batch_of(plain)
    with torch.no_grad():
        theirs = plain(ids, attention_mask=mask)
    pruned = pruned_copy(tk, plain, None)
    left, left_mask = repad(ids, mask, "left", 50)
    for tokens, there in ((ids, mask), (left, left_mask)):
        out = run(pruned, tokens, there, output_hidden_states=hidden)
        for name in theirs:
            own, other = getattr(out, name), getattr(theirs, name)
            if head in FIRST_ONLY:
                assert text_error(own, other) <= TOLERANCE
            else:
                assert text_error(own[there != 0][None], other[mask != 0][None]) <= TOLERANCE
        assert (out.hidden_states is None) == (not hidden)


def test_heads_pruned(kind):
    """A classifier reads its first token's last state as the oracle has it, whether the padded states are restored or not."""
    plain = of_type(kind, "ForSequenceClassification")
    base = with_berts_names(base_of(plain))
    ids, mask = batch_of(plain)
    pruning = make_pruning(base, ids, mask)
    double = copy.deepcopy(plain).double()
    expected = oracle64(base, ids, mask, pruning)
    states = expected.last_hidden_state
    with torch.no_grad():
        if kind == "distilbert":
            states = double.pre_classifier(states[:, 0]).relu()
        read = double.classifier(states if expected.pooler_output is None else expected.pooler_output)
    pruned = pruned_copy(tk, plain, pruning)
    for options in ({}, {"output_hidden_states": True}):
        assert text_error(run(pruned, ids, mask, **options).logits, read) <= TOLERANCE
        assert text_error(run(pruned, *repad(ids, mask, "left", 49), **options).logits, read) <= TOLERANCE
    again = pickle.loads(pickle.dumps(pruned))
    assert torch.equal(run(again, ids, mask).logits, run(pruned, ids, mask).logits)


@pytest.mark.parametrize("kind", ["roberta", "electra"])
def test_a_classifier_of_ones_own_gets_all_states(kind):
    """Nothing says that it reads the first token only."""

    class Mean(torch.nn.Module):
        def forward(self, states):
            return states.mean(dim=1)

    plain = of_type(kind, "ForSequenceClassification")
    base = base_of(plain)
    plain.classifier = Mean()
    ids, mask = batch_of(plain, (9, 9))
    out = run(pruned_copy(tk, plain, None), ids, mask)
    assert text_error(out.logits, run(pruned_copy(tk, base, None), ids, mask).last_hidden_state.mean(dim=1)) <= TOLERANCE


def test_positions(kind):
    """As many tokens as there are positions for, and not one more."""
    plain = of_type(kind)
    config = plain.config
    assert first_position(config) == (0 if kind in ("distilbert", "electra", "ernie") else config.pad_token_id + 1)
    most = longest_text(config)
    assert most == 64 - first_position(config)
    ids, mask = batch_of(plain, (most, 3))
    pruned = pruned_copy(tk, plain, None)
    with torch.no_grad():
        theirs = plain(ids, attention_mask=mask).last_hidden_state
    assert text_error(run(pruned, ids, mask).last_hidden_state, theirs, mask) <= TOLERANCE
    with pytest.raises(ValueError, match=f"a text of {most + 1} tokens, but the model has positions for {most}: truncate it"):
        run(pruned, *batch_of(plain, (most + 1, 3)))


@pytest.mark.parametrize("masked", [True, False])
def test_a_live_padding_token_is_where_hugging_face_has_it(kind, masked):
    """In the middle and at both ends of a text, and as padding that no mask says."""
    plain = of_type(kind)
    ids, mask = batch_of(plain)
    padding = plain.config.pad_token_id
    ids[0, 0] = ids[0, 5] = ids[0, 6] = ids[0, 15] = ids[3, 20] = padding
    given = {"attention_mask": mask} if masked else {}
    live = mask if masked else torch.ones_like(mask)
    with torch.no_grad():
        theirs = plain(ids, **given).last_hidden_state
    pruned = pruned_copy(tk, plain, None)
    for gradients in (False, True):
        assert text_error(run(pruned, ids, given.get("attention_mask"), gradients).last_hidden_state, theirs, live) <= TOLERANCE
    if masked:
        left, left_mask = repad(ids, mask, "left", 50)
        assert text_error(run(pruned, left, left_mask).last_hidden_state[left_mask != 0][None], theirs[mask != 0][None]) <= TOLERANCE


@pytest.mark.parametrize("kind", ["roberta"])
def test_positions_of_masked_tokens_do_not_count(kind):
    """Other than in Hugging Face, whatever stands where nothing is."""
    plain = of_type(kind)
    ids, mask = batch_of(plain)
    left, left_mask = repad(ids, mask, "left", 50)
    pruned = pruned_copy(tk, plain, None)
    expected = run(pruned, ids, mask).last_hidden_state[mask != 0]
    for other in (plain.config.pad_token_id, 0, VOCABULARY - 2):
        filled = torch.where(left_mask != 0, left, other)
        assert text_error(run(pruned, filled, left_mask).last_hidden_state[left_mask != 0][None], expected[None]) <= TOLERANCE


def test_task_types_are_packed():
    plain = of_type("ernie")
    ids, mask = batch_of(plain)
    types = {"task_type_ids": ids % 3, "token_type_ids": ids % 2}
    with torch.no_grad():
        theirs, without = (plain(ids, attention_mask=mask, **given).last_hidden_state for given in (types, {}))
    ours = run(pruned_copy(tk, plain, None), ids, mask, **types).last_hidden_state
    assert text_error(ours, theirs, mask) <= TOLERANCE < text_error(without, theirs, mask)


def test_flops_count_alike():
    lengths = torch.tensor([[9, 3], [9, 3], [5, 2], [1, 1]])
    plain = of_type("distilbert")
    assert torch.equal(tk.flops.encoder_flops(lengths, plain.config), tk.flops.encoder_flops(lengths, with_berts_names(plain).config))


def test_frozen(kind):
    """Weights in the kernels' layout only, and back."""
    plain = of_type(kind, "ForSequenceClassification")
    ids, mask = batch_of(plain)
    model = pruned_copy(tk, plain, Pruning("topk", (1.0, 0.6, 0.5), position="before_layer"))
    logits = run(model, ids, mask).logits
    assert torch.equal(run(model.freeze_for_inference(), ids, mask).logits, logits)
    assert torch.equal(run(model.unfreeze(), ids, mask).logits, logits)


def test_attention_dropout_is_said_to_be_off_in_training(kind):
    plain = of_type(kind)
    ids, mask = batch_of(plain)
    with pytest.warns(UserWarning, match="attention dropout"):
        run(pruned_copy(tk, plain, None).train(), ids, mask, gradients=True)


def test_others_are_refused():
    config = transformers.MPNetConfig(hidden_size=64, num_attention_heads=2, num_hidden_layers=2, intermediate_size=64, vocab_size=30)
    with pytest.raises(ValueError, match="model type 'mpnet'.*bert, camembert, data2vec-text, distilbert, electra, ernie, roberta, xlm-roberta"):
        tk.prune_model(transformers.MPNetModel(config), None)
