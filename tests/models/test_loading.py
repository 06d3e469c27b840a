"""Checkpoints: ordinary BERT in, pruned BERT out and back, Auto classes, copies and pickles."""

import copy
import io
import json
import pickle
import warnings

import pytest
import tokprune_kernels as tk
import torch
import transformers

from ..oracle import Pruning
from .helpers import encode, oracle64, pruned_copy, random_batch, random_bert, run, text_error, to_config

PRUNING = Pruning("topk", (1.0, 0.6, 0.5), position="before_layer", protected_token_ids=(3,))
THRESHOLDS = Pruning("threshold", (0.0, 0.02, 0.03), score_denominator=64, protect_first=False)
TOLERANCE = 1e-5


@pytest.fixture
def checkpoint(tmp_path):
    """(folder, model): an ordinary Hugging Face BertModel saved to disk."""
    model = random_bert()
    model.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert", model


@pytest.fixture
def classifier_checkpoint(tmp_path):
    model = random_bert(transformers.BertForSequenceClassification, num_labels=4)
    model.save_pretrained(tmp_path / "classifier")
    return tmp_path / "classifier", model


def load_quietly(log, cls, path, **options):
    """from_pretrained that must neither warn nor miss nor find unknown keys; returns the model."""
    log.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, info = cls.from_pretrained(path, output_loading_info=True, **options)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    messages = [record.getMessage() for record in log.records] + [str(w.message) for w in caught]
    assert not [m for m in messages if "model of type" in m or "model_type" in m or "newly initialized" in m], messages
    return model


def assert_same_outputs(one, two):
    ids, mask = random_batch()
    first, second = run(one, ids, mask), run(two, ids, mask)
    assert torch.equal(first.pruning.kept_mask, second.pruning.kept_mask)
    assert torch.equal(first[0], second[0])


def test_ordinary_checkpoint(checkpoint, transformers_log):
    path, plain = checkpoint
    model = load_quietly(transformers_log, tk.PrunedBertModel, path, pruning=to_config(tk, PRUNING))
    assert not model.training
    ids, mask = random_batch()
    expected = oracle64(plain, ids, mask, PRUNING)
    out = run(model, ids, mask)
    assert torch.equal(out.pruning.kept_mask, expected.kept_mask)
    assert text_error(out.last_hidden_state, expected.last_hidden_state) <= TOLERANCE
    assert list(model.state_dict()) == list(plain.state_dict())


def test_minilm(minilm, minilm_path, tokenizer, transformers_log):
    pruning = Pruning("topk", (0.9, 0.9, 0.8, 0.7, 0.6, 0.5))
    model = load_quietly(transformers_log, tk.PrunedBertModel, minilm_path, pruning=to_config(tk, pruning))
    ids, mask = encode(tokenizer, ["Rain again.", "The museum moved its collection of clocks into the tower."])
    expected = oracle64(minilm, ids, mask, pruning)
    out = run(model, ids, mask)
    assert torch.equal(out.pruning.kept_mask, expected.kept_mask)
    assert text_error(out.last_hidden_state, expected.last_hidden_state) <= TOLERANCE


def test_without_pruning_nothing_is_pruned(checkpoint, transformers_log):
    path, plain = checkpoint
    model = load_quietly(transformers_log, tk.PrunedBertModel, path)
    ids, mask = random_batch()
    out = run(model, ids, mask)
    assert torch.equal(out.pruning.kept_lengths, mask.sum(1).expand(4, -1))
    assert text_error(out.last_hidden_state, oracle64(plain, ids, mask, None).last_hidden_state) <= TOLERANCE


def test_classifier_checkpoint(classifier_checkpoint, transformers_log):
    path, plain = classifier_checkpoint
    cls = tk.PrunedBertForSequenceClassification
    model = load_quietly(transformers_log, cls, path, pruning=to_config(tk, PRUNING))
    ids, mask = random_batch((16, 1, 7, 48))
    out = run(model, ids, mask)
    expected = oracle64(plain.bert, ids, mask, PRUNING)
    logits = copy.deepcopy(plain).double().classifier(expected.pooler_output)
    assert out.logits.shape == (4, 4)
    assert torch.equal(out.pruning.kept_mask, expected.kept_mask)
    assert text_error(out.logits, logits) <= TOLERANCE
    assert list(model.state_dict()) == list(plain.state_dict())


def test_base_from_a_classifier_checkpoint(classifier_checkpoint):
    path, plain = classifier_checkpoint
    model, info = tk.PrunedBertModel.from_pretrained(path, pruning=to_config(tk, PRUNING), output_loading_info=True)
    assert not info["missing_keys"]
    assert set(info["unexpected_keys"]) == {"classifier.weight", "classifier.bias"}
    assert_same_outputs(model, pruned_copy(tk, plain.bert, PRUNING))


def test_classifier_from_a_base_checkpoint(checkpoint):
    path, plain = checkpoint
    cls = tk.PrunedBertForSequenceClassification
    model, info = cls.from_pretrained(path, pruning=to_config(tk, PRUNING), num_labels=5, output_loading_info=True)
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert not info["unexpected_keys"]
    ids, mask = random_batch()
    assert run(model, ids, mask).logits.shape == (8, 5)
    assert_same_outputs(model.bert, pruned_copy(tk, plain, PRUNING))


@pytest.mark.parametrize("pruning", [PRUNING, THRESHOLDS, None], ids=["ratios", "thresholds", "dense"])
def test_save_and_load_back(checkpoint, tmp_path, transformers_log, pruning):
    config = to_config(tk, pruning)
    model = tk.PrunedBertModel.from_pretrained(checkpoint[0], pruning=config)
    run(model, *random_batch())
    model.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["model_type"] == ("bert" if config.is_dense else "tokprune_kernels_bert")
    assert tk.PruningConfig.from_dict(saved["pruning"]) == config
    back = load_quietly(transformers_log, tk.PrunedBertModel, tmp_path / "saved")
    assert tk.PruningConfig.from_dict(back.config.pruning) == config
    assert_same_outputs(back, model)


def test_pruning_argument_replaces_the_saved_one(checkpoint, tmp_path):
    tk.PrunedBertModel.from_pretrained(checkpoint[0], pruning=to_config(tk, PRUNING)).save_pretrained(tmp_path / "saved")
    back = tk.PrunedBertModel.from_pretrained(tmp_path / "saved", pruning=to_config(tk, THRESHOLDS))
    assert back.config.pruning == to_config(tk, THRESHOLDS).to_dict()
    assert_same_outputs(back, pruned_copy(tk, checkpoint[1], THRESHOLDS))


def test_bfloat16_checkpoint_and_dtype(checkpoint, tmp_path):
    model = tk.PrunedBertModel.from_pretrained(checkpoint[0], pruning=to_config(tk, PRUNING), dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    model.save_pretrained(tmp_path / "saved")
    assert_same_outputs(tk.PrunedBertModel.from_pretrained(tmp_path / "saved", dtype=torch.bfloat16), model)


def test_auto_classes(classifier_checkpoint, tmp_path):
    cls = tk.PrunedBertForSequenceClassification
    model = cls.from_pretrained(classifier_checkpoint[0], pruning=to_config(tk, PRUNING))
    model.save_pretrained(tmp_path / "saved")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "saved")
    assert type(config) is tk.PrunedBertConfig
    assert config.pruning == to_config(tk, PRUNING).to_dict()
    back = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert type(back) is cls
    assert_same_outputs(back, model)
    base = transformers.AutoModel.from_pretrained(tmp_path / "saved")
    assert type(base) is tk.PrunedBertModel
    assert_same_outputs(base, model.bert)


def test_model_from_a_configuration():
    config = tk.PrunedBertConfig(
        vocab_size=97, hidden_size=64, num_hidden_layers=3, num_attention_heads=2, pruning=to_config(tk, PRUNING).to_dict()
    )
    model = tk.PrunedBertModel(config).eval()
    ids, mask = random_batch()
    plain = transformers.BertModel(transformers.BertConfig(**{**config.to_dict(), "model_type": "bert"})).eval()
    plain.load_state_dict(model.state_dict())
    out = run(model, ids, mask)
    assert torch.equal(out.pruning.kept_lengths, oracle64(plain, ids, mask, PRUNING).kept_lengths)


def test_configuration_round_trip(tmp_path):
    config = tk.PrunedBertConfig(hidden_size=64, num_attention_heads=2, pruning=None)
    assert config.model_type == "bert" and config.pruning is None
    config.save_pretrained(tmp_path)
    assert tk.PrunedBertConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_save_after_prune_model(checkpoint, tmp_path, transformers_log):
    """The saved model is a pruned one, whichever way it was made so."""
    plain = checkpoint[1]
    pruned = pruned_copy(tk, plain, PRUNING)
    pruned.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["model_type"] == "tokprune_kernels_bert" and saved["architectures"] == ["PrunedBertModel"]
    assert tk.PruningConfig.from_dict(saved["pruning"]) == to_config(tk, PRUNING)
    assert pruned.config.model_type == "bert", "other tools find their way by it"
    assert_same_outputs(load_quietly(transformers_log, tk.PrunedBertModel, tmp_path / "saved"), pruned)


@pytest.mark.parametrize("name", ["BertForMaskedLM", "BertForTokenClassification", "BertForSequenceClassification"])
def test_pruned_heads_save_the_weights_of_plain_ones(name, tmp_path, transformers_log):
    """Tied weights included."""
    cls = getattr(transformers, name)
    plain = random_bert(cls)
    pruned = pruned_copy(tk, plain, PRUNING)
    run(pruned, *random_batch())
    pruned.save_pretrained(tmp_path)
    back = load_quietly(transformers_log, getattr(tk, f"Pruned{name}"), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(back.state_dict().values(), plain.state_dict().values(), strict=True))


def test_without_a_pooler(checkpoint):
    model = tk.PrunedBertModel.from_pretrained(checkpoint[0], pruning=to_config(tk, PRUNING), add_pooling_layer=False)
    out = run(model, *random_batch())
    assert out.pooler_output is None
    expected = run(pruned_copy(tk, checkpoint[1], PRUNING), *random_batch())
    assert torch.equal(out.last_hidden_state, expected.last_hidden_state)


def test_set_pruning(checkpoint):
    model = tk.PrunedBertModel.from_pretrained(checkpoint[0], pruning=to_config(tk, PRUNING))
    run(model, *random_batch())
    model.set_pruning(to_config(tk, THRESHOLDS))
    assert model.config.pruning == to_config(tk, THRESHOLDS).to_dict()
    assert_same_outputs(model, pruned_copy(tk, checkpoint[1], THRESHOLDS))
    model.set_pruning(tk.PruningConfig.dense())
    assert_same_outputs(model, pruned_copy(tk, checkpoint[1], None))


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


def through_torch_save(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("through", [copy.deepcopy, through_pickle, through_torch_save], ids=lambda f: f.__name__)
@pytest.mark.parametrize("route", ["PrunedBertModel", "PrunedBertForSequenceClassification", "prune_model", "classifier"])
def test_whole_model_copies(through, route, checkpoint, classifier_checkpoint):
    models = {
        "PrunedBertModel": lambda: tk.PrunedBertModel.from_pretrained(checkpoint[0], pruning=to_config(tk, PRUNING)),
        "PrunedBertForSequenceClassification": lambda: tk.PrunedBertForSequenceClassification.from_pretrained(
            classifier_checkpoint[0], pruning=to_config(tk, PRUNING)
        ),
        "prune_model": lambda: pruned_copy(tk, checkpoint[1], PRUNING),
        "classifier": lambda: pruned_copy(tk, classifier_checkpoint[1], PRUNING),
    }
    model = models[route]()
    fresh = through(model)
    run(model, *random_batch())  # packed weights now exist beside the module
    used = through(model)
    for other in (fresh, used):
        assert type(other) is type(model)
        assert_same_outputs(other, model)
        other.set_pruning(tk.PruningConfig.dense())
        assert model.config.pruning == to_config(tk, PRUNING).to_dict(), "the copy shares its settings with the original"


def test_packed_weights_are_not_pickled():
    model = pruned_copy(tk, random_bert(hidden_size=128), PRUNING)
    before = len(pickle.dumps(model))
    run(model, *random_batch())
    assert len(pickle.dumps(model)) < 1.05 * before


def test_eager_and_sdpa_settings_make_no_difference(checkpoint):
    models = [
        tk.PrunedBertModel.from_pretrained(checkpoint[0], pruning=to_config(tk, PRUNING), attn_implementation=name)
        for name in ("eager", "sdpa")
    ]
    assert_same_outputs(*models)
