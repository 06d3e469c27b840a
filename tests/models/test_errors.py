"""Bad input is refused with a ValueError or TypeError whose message names the argument."""

import json
import warnings
import math

import pytest
import tokprune_kernels as tk
import torch
import transformers

from ..oracle import Pruning
from .helpers import pruned_copy, random_batch, random_bert, run, to_config, text_error

REFUSED = (ValueError, TypeError)
PRUNING = Pruning("topk", (1.0, 0.6, 0.5), position="before_layer")

NAN, INF = math.nan, math.inf
ltp, top, from_dict = tk.PruningConfig.ltp, tk.PruningConfig.top, tk.PruningConfig.from_dict

# what is refused when the configuration is made: (argument named in the message, call)
BAD_CONFIGS = {
    "threshold NaN": ("thresholds", lambda: ltp([0.0, NAN, 0.1])),
    "threshold inf": ("thresholds", lambda: ltp([0.0, INF, 0.1])),
    "threshold -inf": ("thresholds", lambda: ltp([0.0, -INF, 0.1])),
    "threshold text": ("thresholds", lambda: ltp([0.0, "0.1", 0.1])),
    "thresholds a number": ("thresholds", lambda: ltp(0.1)),
    "thresholds text": ("thresholds", lambda: ltp("0.1")),
    "ratio 0": ("keep_ratios", lambda: top([1.0, 0.0, 0.5])),
    "ratio negative": ("keep_ratios", lambda: top([1.0, -0.5, 0.5])),
    "ratio above 1": ("keep_ratios", lambda: top([1.0, 1.01, 0.5])),
    "ratio NaN": ("keep_ratios", lambda: top([1.0, NAN, 0.5])),
    "ratio inf": ("keep_ratios", lambda: top([1.0, INF, 0.5])),
    "ratio None": ("keep_ratios", lambda: top([1.0, None, 0.5])),
    "first ratio below 1": ("keep_ratios", lambda: top([0.9, 0.5, 0.5], position="before_layer")),
    "first threshold above 0": ("thresholds", lambda: ltp([0.1, 0.1, 0.1], position="before_layer")),
    "position": ("position", lambda: top([1.0, 0.5, 0.5], position="after_layer")),
    "denominator text": ("score_denominator", lambda: ltp([0.0, 0.1], score_denominator="padded")),
    "denominator 0": ("score_denominator", lambda: ltp([0.0, 0.1], score_denominator=0)),
    "denominator negative": ("score_denominator", lambda: ltp([0.0, 0.1], score_denominator=-128)),
    "denominator fraction": ("score_denominator", lambda: ltp([0.0, 0.1], score_denominator=12.5)),
    "protect_first": ("protect_first", lambda: ltp([0.0, 0.1], protect_first="yes")),
    "protected id text": ("protected_token_ids", lambda: ltp([0.0, 0.1], protected_token_ids=("[SEP]",))),
    "protected id fraction": ("protected_token_ids", lambda: ltp([0.0, 0.1], protected_token_ids=(1.5,))),
    "protected ids a number": ("protected_token_ids", lambda: ltp([0.0, 0.1], protected_token_ids=102)),
    "criterion": ("criterion", lambda: from_dict({**ltp([0.0, 0.1]).to_dict(), "criterion": "softmax"})),
    "unknown key": ("treshold", lambda: from_dict({**ltp([0.0, 0.1]).to_dict(), "treshold": 0.1})),
    "not a dict": ("PruningConfig", lambda: from_dict([0.0, 0.1])),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_bad_configuration(case):
    name, make = BAD_CONFIGS[case]
    with pytest.raises(REFUSED, match=name):
        make()


GOOD_CONFIGS = {
    "ltp": lambda: ltp([0.0, 0.1], score_denominator="initial", protected_token_ids=(102,)),
    "top": lambda: top((1.0, 0.5), protect_first=False),
    "denominator": lambda: ltp([0.0, 0.1], score_denominator=128),
    "negative threshold": lambda: ltp([-0.1, 0.1]),
    "top after_attention": lambda: top([0.5, 0.5], position="after_attention"),
    "ltp before_layer": lambda: ltp([0.0, 0.1], position="before_layer"),
    "dense": lambda: tk.PruningConfig.dense(),
}


@pytest.mark.parametrize("case", GOOD_CONFIGS)
def test_good_configuration_survives_json(case):
    config = GOOD_CONFIGS[case]()
    assert from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert hash(config) == hash(from_dict(config.to_dict()))
    with pytest.raises(AttributeError):  # frozen
        config.position = "before_layer"


def test_defaults_are_the_papers():
    assert (ltp([0.0]).criterion, ltp([0.0]).position) == ("threshold", "after_attention")
    assert (top([1.0]).criterion, top([1.0]).position) == ("topk", "before_layer")
    for config in (ltp([0.0]), top([1.0])):
        assert (config.score_denominator, config.protect_first, config.protected_token_ids) == ("kept", True, ())


WRONG_LENGTHS = {
    "thresholds": [ltp([0.0, 0.1]), ltp([0.0] * 4), ltp([])],
    "keep_ratios": [top([1.0, 0.5]), top([1.0] * 4)],
}


@pytest.mark.parametrize("name", WRONG_LENGTHS)
@pytest.mark.parametrize("index", [0, 1])
def test_list_of_wrong_length(name, index, tmp_path):
    config, model = WRONG_LENGTHS[name][index], random_bert()
    with pytest.raises(ValueError, match=f"{name}.*3|3.*{name}"):
        tk.prune_model(model, config)
    pruned = tk.prune_model(model, to_config(tk, PRUNING))
    with pytest.raises(ValueError, match=name):
        pruned.set_pruning(config)
    random_bert().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=name):
        tk.PrunedBertModel.from_pretrained(tmp_path, pruning=config)


@pytest.mark.parametrize("pruning", [0.5, [1.0, 0.5, 0.5], "ltp"])
def test_pruning_that_is_no_configuration(pruning):
    with pytest.raises(REFUSED, match="pruning|PruningConfig"):
        tk.prune_model(random_bert(), pruning)


IDS, MASK = random_batch((16, 4, 7))  # (3, 16)

# what is refused in a forward: (argument named in the message, arguments)
BAD_INPUTS = {
    "float ids": ("input_ids", {"input_ids": IDS.float()}),
    "one-dimensional ids": ("input_ids", {"input_ids": IDS[0], "attention_mask": None}),
    "neither ids nor embeddings": ("input_ids", {"input_ids": None}),
    "ids and embeddings": ("inputs_embeds", {"inputs_embeds": torch.zeros(3, 16, 64)}),
    "mask 4-D": ("attention_mask", {"attention_mask": MASK[:, None, None, :]}),
    "mask 4-D, additive": ("attention_mask", {"attention_mask": torch.zeros(3, 1, 16, 16)}),
    "mask 3-D": ("attention_mask", {"attention_mask": MASK[:, None, :].expand(3, 16, 16)}),
    "mask 1-D": ("attention_mask", {"attention_mask": MASK[0]}),
    "mask shorter": ("attention_mask", {"attention_mask": MASK[:, :-1]}),
    "mask longer": ("attention_mask", {"attention_mask": torch.ones(3, 17, dtype=torch.long)}),
    "mask of another batch": ("attention_mask", {"attention_mask": MASK[:2]}),
    "mask of one row": ("attention_mask", {"attention_mask": MASK[:1]}),
    "mask complex": ("attention_mask", {"attention_mask": MASK.to(torch.complex64)}),
    "mask list": ("attention_mask", {"attention_mask": MASK.tolist()}),
    "token types of another shape": ("token_type_ids", {"token_type_ids": torch.zeros(3, 15, dtype=torch.long)}),
    "positions of another shape": ("position_ids", {"position_ids": torch.zeros(3, 15, dtype=torch.long)}),
    "cross attention": ("encoder_hidden_states", {"encoder_hidden_states": torch.zeros(3, 4, 64)}),
    "cache": ("past_key_values", {"past_key_values": ()}),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
@pytest.mark.parametrize("route", ["base", "classifier"])
@pytest.mark.parametrize("gradients", [False, True], ids=["no_grad", "grad"])
def test_bad_input(case, route, gradients):
    name, changed = BAD_INPUTS[case]
    cls = {"base": transformers.BertModel, "classifier": transformers.BertForSequenceClassification}[route]
    model = pruned_copy(tk, random_bert(cls), PRUNING)
    arguments = {"input_ids": IDS, "attention_mask": MASK, **changed}
    with torch.set_grad_enabled(gradients), pytest.raises(REFUSED, match=name):
        model(**arguments)
    assert run(model, IDS, MASK)[0].isfinite().all(), "the model must work after a refused call"


def test_text_longer_than_the_positions():
    model = pruned_copy(tk, random_bert(), PRUNING)  # 64 positions
    ids, mask = random_batch((65, 3))
    with pytest.raises((ValueError, IndexError)):
        run(model, ids, mask)
    ids, mask = random_batch((60, 60))  # 120 packed tokens are no problem
    assert run(model, ids, mask).last_hidden_state.isfinite().all()


UNSUPPORTED = {
    "gpt2": lambda: transformers.GPT2Model(transformers.GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=50)),
    "t5": lambda: transformers.T5EncoderModel(
        transformers.T5Config(num_layers=1, d_model=32, num_heads=2, d_ff=32, d_kv=16, vocab_size=50)
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_model_type(name):
    with pytest.raises(ValueError, match=f"(?s){name}.*bert"):  # says what was given and lists what would do
        tk.prune_model(UNSUPPORTED[name](), tk.PruningConfig.dense())


@pytest.mark.parametrize("model", [torch.nn.Linear(2, 2), None, "bert-base-uncased"], ids=["module", "none", "name"])
def test_no_transformers_model(model):
    with pytest.raises(REFUSED, match="model"):
        tk.prune_model(model, tk.PruningConfig.dense())


def test_decoder_is_refused():
    with pytest.raises(ValueError, match="is_decoder"):
        tk.prune_model(random_bert(is_decoder=True), to_config(tk, PRUNING))


@pytest.mark.parametrize("gradients", [False, True], ids=["no_grad", "grad"])
def test_attention_dropout_in_training_is_said_to_be_off(gradients):
    """Once, and nothing else changes: the importance is of undropped probabilities, and hidden dropout is as ever."""
    model = pruned_copy(tk, random_bert(hidden_dropout_prob=0.0), PRUNING).train()  # BertConfig's attention dropout is 0.1
    with pytest.warns(UserWarning, match="attention dropout of the model's configuration is not applied"):
        dropped = run(model, IDS, MASK, gradients)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(model, IDS, MASK, gradients)
    expected = run(model.eval(), IDS, MASK)
    assert torch.equal(dropped.pruning.kept_mask, expected.pruning.kept_mask)
    assert text_error(dropped.last_hidden_state, expected.last_hidden_state) <= 1e-5


@pytest.mark.parametrize("where", ["call", "configuration"])
def test_a_cache_asked_of_an_encoder_is_none(where):
    """As in Hugging Face: `use_cache` is for decoders."""
    plain = random_bert()
    plain.config.use_cache = True
    out = run(pruned_copy(tk, plain, PRUNING), IDS, MASK, **({"use_cache": True} if where == "call" else {}))
    assert out.get("past_key_values") is None and out.last_hidden_state.isfinite().all()


def test_protected_ids_need_input_ids():
    """With embeddings only nobody can tell which token is which."""
    model = pruned_copy(tk, random_bert(), Pruning("topk", (1.0, 0.5, 0.5), protected_token_ids=(3,)))
    with pytest.raises(ValueError, match="protected_token_ids"), torch.no_grad():
        model(inputs_embeds=torch.randn(3, 16, 64), attention_mask=MASK)
