"""`tokprune calibrate`: what it chooses on texts without labels, what it leaves behind, and how it fails."""

import pytest
import tokprune_kernels as tk
import torch
import transformers

from .conftest import LAYERS
from .labelled import sentences, write_rows

datasets = pytest.importorskip("datasets", reason="needs datasets")

from tokprune_train.calibration.latency_table import LatencyTable  # noqa: E402


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def classifier(tiny_bert, tmp_path_factory):
    """A folder with a classifier whose attention is not flat."""
    folder = tmp_path_factory.mktemp("classifier")
    model = transformers.BertForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.4 if "layer" in name else 1.0))
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(text for text, _ in sentences(64, 5, "cat")) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("method", ["top", "ltp"])
def test_meets_the_speed_and_says_how_near_it_stays(json_of, classifier, lines, tmp_path, method):
    output = tmp_path / "out"
    result = json_of("calibrate", classifier, "--text", lines, "--speedup", 1.4, "--method", method, "--output", output, "--threads", 1)
    pruning = tk.PruningConfig.from_dict(result["pruning"])
    assert (pruning.criterion, pruning.position) == ({"top": "topk", "ltp": "threshold"}[method], "after_attention")
    found = result["faithfulness"]
    assert found["rows"] == 32 and found["flops_reduction"] == pytest.approx(1.4, rel=0.06)
    assert found["flops_reduction"] == pytest.approx(1 / (1 - found["saved"]))
    assert len(found["tokens_alive"]) == LAYERS + 1
    # The saved model prunes so: the figures again, from it and the texts that chose nothing.
    texts = lines.read_text(encoding="utf-8").splitlines()[1::2]
    batch = transformers.AutoTokenizer.from_pretrained(output)(texts, padding=True, return_tensors="pt")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        dense = transformers.BertForSequenceClassification.from_pretrained(classifier)(**inputs).logits
        pruned = tk.PrunedBertForSequenceClassification.from_pretrained(output)
        assert pruned.config.pruning == result["pruning"]
        out = pruned(**inputs, output_pruning=True)
    assert found["same_answers"] == float((dense.argmax(1) == out.logits.argmax(1)).double().mean())
    distance = torch.nn.functional.kl_div(out.logits.log_softmax(1), dense.log_softmax(1), log_target=True, reduction="batchmean")
    assert found["distance"] == pytest.approx(float(distance), abs=1e-5)
    kept = out.pruning.kept_lengths
    assert found["tokens_alive"] == pytest.approx((kept / kept[0]).mean(dim=1).tolist())


def test_from_a_data_set_without_labels(tokprune, classifier, tmp_path):
    write_rows(tmp_path / "train.jsonl", [{"text": text} for text, _ in sentences(20, 6, "cat")])
    code, out, errors = tokprune("calibrate", classifier, "--data", tmp_path, "--speedup", 1.2, "--rows", 10, "--position", "before_layer")
    assert code == 0, errors
    assert "% as without pruning, KL" in out and "5 texts that chose nothing" in out and "asked for: 1.2x" in out
    assert "before layer" in out and "saved in" not in out


def test_pairs_under_measured_time(json_of, classifier, tmp_path, monkeypatch):
    """On a machine whose time is the number of tokens; the real one's, for so small a model, is mostly its own."""
    asked = []

    def measured(model, texts, lengths, **_):
        asked.append((texts, len(lengths)))
        table = {"tokens": (4, 4000), "attention_ms": (0.004, 4.0), "rest_ms": (0.004, 4.0)}
        return LatencyTable(**table, texts=texts, threads=1, dtype="float32", machine={})

    monkeypatch.setattr("tokprune_train.calibration.measure.measure_latency_table", measured)
    rows = [{"premise": text, "hypothesis": "the cat slept", "label": 0} for text, _ in sentences(16, 7, "mat")]
    write_rows(tmp_path / "pairs.jsonl", rows)
    given = ("--data", tmp_path / "pairs.jsonl", "--speedup", 1.3, "--latency", "--batch", 4)
    result = json_of("calibrate", classifier, *given)
    assert asked == [(4, 16)] and result["latency"]
    assert result["faithfulness"]["saved"] == pytest.approx(1 - 1 / 1.3, abs=0.04)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--speedup", 1), "--speedup must be above 1, got 1"),
        (("--speedup", 50), "no thresholds or ratios within reach save so much: the most is"),
        (("--speedup", 1.2, "--rows", 1), "two texts are needed at least"),
        (("--speedup", 1.2, "--max-length", 1000), "--max-length 1000 is more than the 64 positions"),
    ],
)
def test_what_cannot_be(tokprune, classifier, lines, arguments, message):
    code, _, errors = tokprune("calibrate", classifier, "--text", lines, *arguments)
    assert code == 1 and message in errors and len(errors.strip().splitlines()) == 1


@pytest.mark.parametrize("method", ["top", "ltp"])
@pytest.mark.parametrize(("position", "denominator"), [("before_layer", "kept"), ("after_attention", "sqrt_kept"), ("before_layer", 16)])
def test_position_and_denominator_of_both_methods(json_of, classifier, lines, method, position, denominator):
    how = ("--method", method, "--position", position, "--score-denominator", denominator)
    result = json_of("calibrate", classifier, "--text", lines, "--rows", 32, "--speedup", 1.3, *how)
    pruning = tk.PruningConfig.from_dict(result["pruning"])
    assert (pruning.position, pruning.score_denominator) == (position, denominator)
    assert result["faithfulness"]["flops_reduction"] == pytest.approx(1.3, rel=0.15)


def test_what_cannot_be_calibrated(tokprune, tiny_bert, classifier, lines, tmp_path):
    code, _, errors = tokprune("calibrate", tiny_bert, "--text", lines, "--speedup", 1.2)
    assert code == 1 and "has no classification head (BertModel)" in errors
    write_rows(tmp_path / "rows.jsonl", [{"words": "cat"}, {"words": "mat"}])
    code, _, errors = tokprune("calibrate", classifier, "--data", tmp_path / "rows.jsonl", "--speedup", 1.2)
    assert code == 1 and "unusable data: no text column" in errors and "--text-column" in errors
    code, _, errors = tokprune("calibrate", classifier, "--speedup", 1.2)
    assert code == 2 and "one of the arguments --text --data is required" in errors


def test_a_cross_encoder_stays_one(json_of, classifier, lines, tmp_path):
    """Every file of its folder, its activation among them: what was a raw score must not come back as a probability."""
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
    one_label = transformers.BertForSequenceClassification.from_pretrained(classifier, num_labels=1, ignore_mismatched_sizes=True)
    one_label.save_pretrained(tmp_path / "made")
    transformers.AutoTokenizer.from_pretrained(classifier).save_pretrained(tmp_path / "made")
    made = sentence_transformers.CrossEncoder(str(tmp_path / "made"), device="cpu", activation_fn=torch.nn.Identity())
    made.save_pretrained(str(tmp_path / "reranker"))
    (tmp_path / "reranker" / "notes").mkdir()
    (tmp_path / "reranker" / "notes" / "read.me").write_text("kept")
    json_of("calibrate", tmp_path / "reranker", "--text", lines, "--speedup", 1.3, "--output", tmp_path / "out", "--threads", 1)
    names = {path.name for path in (tmp_path / "reranker").rglob("*")}
    assert names <= {path.name for path in (tmp_path / "out").rglob("*")}
    back = sentence_transformers.CrossEncoder(str(tmp_path / "out"), device="cpu")
    assert type(back.activation_fn) is torch.nn.Identity and type(back.model).__name__ == "PrunedBertForSequenceClassification"
    pairs = [("a cat", "another cat"), ("a cat", "no dog at all")]
    batch = back.tokenizer(pairs, padding=True, return_tensors="pt")
    with torch.no_grad():
        assert back.predict(pairs) == pytest.approx(back.model(**batch).logits[:, 0].numpy(), abs=1e-6)
