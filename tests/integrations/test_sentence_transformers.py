"""SentenceTransformer and CrossEncoder: pruned, encoded with, trained, saved and loaded by their own means."""

import json

import numpy as np
import pytest
import tokprune_kernels as tk
import torch
import transformers

from ..models.helpers import random_bert

sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
SentenceTransformer, CrossEncoder = sentence_transformers.SentenceTransformer, sentence_transformers.CrossEncoder

RATIOS = [1.0, 0.9, 0.9, 0.8, 0.8, 0.8]
PRUNING = tk.PruningConfig.top(keep_ratios=RATIOS)
TEXTS = [
    "Good morning!",
    "The ferry was late, so we ate the sandwiches and waited at the pier for an hour.",
    "x",
    "A gripping film with a plot that nobody will remember, but for one scene on a bridge in the rain, which is worth the ticket.",
]


@pytest.fixture(scope="module")
def plain(minilm_path):
    return SentenceTransformer(str(minilm_path), device="cpu")


@pytest.fixture
def model(minilm_path):
    return tk.prune_model(SentenceTransformer(str(minilm_path), device="cpu"), PRUNING)


def close(one, two):
    return (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)


def bert_of(model):
    return model[0].auto_model


def test_dense_is_the_same_to_rounding(plain, minilm_path):
    model = tk.prune_model(SentenceTransformer(str(minilm_path), device="cpu"), tk.PruningConfig.dense())
    assert np.abs(model.encode(TEXTS) - plain.encode(TEXTS)).max() <= 1e-5
    frozen = model.freeze_for_inference()
    assert frozen is model and np.abs(model.encode(TEXTS) - plain.encode(TEXTS)).max() <= 1e-5
    model.unfreeze()


def test_the_survivors_are_averaged(plain, model):
    """By itself: what is pooled over exit states of several depths is far from the dense model's embedding."""
    dense, survivors = plain.encode(TEXTS), model.encode(TEXTS)
    assert bert_of(model).config.pruning["readout"] == "survivor_mean"
    batch = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        out = bert_of(model)(**batch, output_pruning=True)
    kept = out.pruning.kept_mask[-1][..., None].float()
    assert (out.pruning.kept_lengths[-1] < out.pruning.kept_lengths[0]).any()
    by_hand = torch.nn.functional.normalize((out.last_hidden_state * kept).sum(1) / kept.sum(1)).numpy()
    assert np.abs(survivors - by_hand).max() <= 1e-5
    model.set_pruning(tk.PruningConfig.top(RATIOS, readout="tokens"))
    exits = model.encode(TEXTS)
    assert close(survivors, dense).mean() > close(exits, dense).mean()


def test_saved_and_loaded(plain, model, tmp_path):
    expected = model.encode(TEXTS)
    model.prompts = {"query": "search: "}
    prompted = model.encode(TEXTS, prompt_name="query")
    model.save(str(tmp_path))
    assert {"modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "1_Pooling", "README.md"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "tokprune_kernels_bert"
    back = SentenceTransformer(str(tmp_path), device="cpu")
    assert np.array_equal(back.encode(TEXTS), expected)
    assert np.array_equal(back.encode(TEXTS, prompt_name="query"), prompted)
    assert str(back).replace("PrunedBertModel", "BertModel") == str(plain), "the modules around it are the same"
    assert np.array_equal(tk.prune_model(back).encode(TEXTS), expected), "its own configuration, when none is given"


def test_what_encode_can_do(model):
    expected = model.encode(TEXTS)
    assert np.array_equal(model.encode(TEXTS, truncate_dim=64), model.encode(TEXTS)[:, :64])
    assert model.encode(TEXTS, convert_to_tensor=True).shape == (4, 384)
    int8 = model.encode(TEXTS, precision="int8", normalize_embeddings=True)
    assert int8.dtype == np.int8 and int8.shape == (4, 384)
    assert np.abs(np.stack([model.encode([text])[0] for text in TEXTS]) - expected).max() <= 1e-5, "alone as in a batch"
    tokens = model.encode(TEXTS, output_value="token_embeddings")
    assert [len(one) for one in tokens] == [len(ids) for ids in model.tokenizer(TEXTS)["input_ids"]]


def test_several_processes(model):
    pool = model.start_multi_process_pool(["cpu", "cpu"])
    try:
        assert np.abs(model.encode(TEXTS * 2, pool=pool, chunk_size=3) - model.encode(TEXTS * 2)).max() <= 1e-6
    finally:
        model.stop_multi_process_pool(pool)


def test_pooled_at_the_first_token(tmp_path, tokenizer, monkeypatch):
    """As bge and its kin: the last layer computes its row alone."""
    from tokprune_kernels.layers import whole

    bert = random_bert(num_hidden_layers=2, hidden_size=64, pad_token_id=0)
    bert.resize_token_embeddings(len(tokenizer))
    bert.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    def loaded():
        transformer = sentence_transformers.models.Transformer(str(tmp_path))
        pooling = sentence_transformers.models.Pooling(transformer.get_embedding_dimension(), pooling_mode="cls")
        return SentenceTransformer(modules=[transformer, pooling], device="cpu")

    dense = tk.prune_model(loaded(), tk.PruningConfig.dense())
    assert bert_of(dense).config.pruning["readout"] == "first"
    seen = []
    monkeypatch.setattr(whole.OPS, "encoder", lambda *a, op=whole.OPS.encoder: (seen.append(a[14]), op(*a))[1])
    assert np.abs(dense.encode(TEXTS) - loaded().encode(TEXTS)).max() <= 1e-5
    assert set(seen) == {whole.READOUTS["first_only"]}
    pruning = tk.PruningConfig.top([1.0, 0.5])
    exact, every = tk.prune_model(loaded(), pruning), loaded()
    tk.prune_model(bert_of(every), pruning)  # the model inside alone: nobody says what is read, so every token is restored
    assert np.abs(exact.encode(TEXTS) - every.encode(TEXTS)).max() <= 1e-5


def test_poolings_that_cannot_be_served(minilm_path):
    model = SentenceTransformer(str(minilm_path), device="cpu")
    model[1].pooling_mode = "lasttoken"
    with pytest.raises(ValueError, match="last token.*protected_token_ids"):
        tk.prune_model(model, PRUNING)
    model[1].pooling_mode, model[1].include_prompt = "mean", False
    with pytest.warns(UserWarning, match="include_prompt=False"):
        tk.prune_model(model, PRUNING)


def test_no_transformers_model_inside():
    model = SentenceTransformer(modules=[torch.nn.Identity()], device="cpu")
    with pytest.raises(TypeError, match="SentenceTransformer holds no transformers model.*Identity"):
        tk.prune_model(model, PRUNING)


@pytest.fixture
def reranker(tmp_path, tokenizer):
    """A CrossEncoder of one label, whose activation is the identity, on disk."""
    bert = random_bert(transformers.BertForSequenceClassification, num_hidden_layers=2, num_labels=1, pad_token_id=0)
    bert.resize_token_embeddings(len(tokenizer))
    bert.save_pretrained(tmp_path / "made")
    tokenizer.save_pretrained(tmp_path / "made")
    model = CrossEncoder(str(tmp_path / "made"), device="cpu", activation_fn=torch.nn.Identity())
    model.save_pretrained(str(tmp_path / "reranker"))
    return str(tmp_path / "reranker")


PAIRS = [("where is the ferry", text) for text in TEXTS]


def test_cross_encoder(reranker, tmp_path, monkeypatch):
    from tokprune_kernels.layers import whole

    plain = CrossEncoder(reranker, device="cpu")
    expected = plain.predict(PAIRS)
    dense = tk.prune_model(CrossEncoder(reranker, device="cpu"), tk.PruningConfig.dense())
    seen = []
    monkeypatch.setattr(whole.OPS, "encoder", lambda *a, op=whole.OPS.encoder: (seen.append(a[14]), op(*a))[1])
    assert np.abs(dense.predict(PAIRS) - expected).max() <= 1e-5
    assert set(seen) == {whole.READOUTS["first_only"]}, "the head reads [CLS] alone, however it is called"
    pruned = tk.prune_model(CrossEncoder(reranker, device="cpu"), tk.PruningConfig.top([1.0, 0.5]))
    scores = pruned.predict(PAIRS)
    assert np.abs(scores - expected).max() > 1e-4
    pruned.save_pretrained(str(tmp_path / "saved"))
    back = CrossEncoder(str(tmp_path / "saved"), device="cpu")
    assert np.array_equal(back.predict(PAIRS), scores) and type(back.activation_fn) is torch.nn.Identity
    assert [one["corpus_id"] for one in back.rank(PAIRS[0][0], TEXTS)] == list(np.argsort(-scores))


def rows(count=8):
    from datasets import Dataset

    return Dataset.from_dict({"anchor": [TEXTS[i % 4] for i in range(count)], "positive": [TEXTS[(i + 1) % 4] for i in range(count)]})


def loss_of(name, model):
    from sentence_transformers import losses

    plain = losses.MultipleNegativesRankingLoss(model)
    if name == "cached":
        return losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=2)
    return losses.MatryoshkaLoss(model, plain, [384, 64]) if name == "Matryoshka" else plain


@pytest.mark.filterwarnings("ignore:tokprune_kernels. the attention dropout")
@pytest.mark.parametrize("loss", ["MNRL", "cached", "Matryoshka"])
def test_training(loss, model, tmp_path):
    """It starts as it is, the weights learn, and what it saves is pruned."""
    pytest.importorskip("datasets")
    before = bert_of(model).encoder.layer[0].attention.self.query.weight.detach().clone()
    arguments = sentence_transformers.SentenceTransformerTrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=4, report_to=[], use_cpu=True, save_steps=2, learning_rate=1e-3
    )
    sentence_transformers.SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=rows(), loss=loss_of(loss, model)
    ).train()
    weight = bert_of(model).encoder.layer[0].attention.self.query.weight
    assert weight.isfinite().all() and not torch.equal(weight, before)
    back = SentenceTransformer(str(tmp_path / "checkpoint-2"), device="cpu")
    assert np.abs(back.encode(TEXTS) - model.eval().encode(TEXTS)).max() <= 1e-6
    assert bert_of(back).config.pruning["keep_ratios"] == RATIOS


@pytest.mark.filterwarnings("ignore:tokprune_kernels. the attention dropout")
def test_training_a_cross_encoder(reranker, tmp_path):
    pytest.importorskip("datasets")
    from datasets import Dataset

    model = tk.prune_model(CrossEncoder(reranker, device="cpu"), tk.PruningConfig.top([1.0, 0.5]))
    data = Dataset.from_dict({"query": [one for one, _ in PAIRS], "answer": TEXTS, "label": [1.0, 0.0, 0.0, 1.0]})
    arguments = sentence_transformers.CrossEncoderTrainingArguments(
        str(tmp_path), max_steps=1, per_device_train_batch_size=4, report_to=[], use_cpu=True
    )
    loss = sentence_transformers.cross_encoder.losses.BinaryCrossEntropyLoss(model)
    sentence_transformers.CrossEncoderTrainer(model=model, args=arguments, train_dataset=data, loss=loss).train()
    assert np.isfinite(model.predict(PAIRS)).all()


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_backends_that_cannot_prune_say_so(backend, model, tmp_path):
    """They would load the weights and prune nothing: the folder's model type keeps them from it."""
    model.save(str(tmp_path))
    with pytest.raises(Exception, match="(?s)tokprune_kernels|[Oo]ptimum|backend"):
        SentenceTransformer(str(tmp_path), device="cpu", backend=backend)
