"""`tokprune eval` on a tiny classifier: score, FLOPs and time of what is really removed, and how it fails."""

import json

import pytest
import tokprune_kernels as tk
import torch
from transformers import AutoTokenizer

from .labelled import sentences, write_folder, write_pairs, write_rows

datasets = pytest.importorskip("datasets", reason="needs datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data", validation=10)


@pytest.fixture
def rows(tmp_path):
    """A file of rows labelled by number, as the tiny classifier's own labels are."""
    write_rows(tmp_path / "rows.jsonl", [{"text": text, "label": there} for text, there in sentences(10, 5, "cat")])
    return tmp_path / "rows.jsonl"


def test_score_and_flops(json_of, tokprune, tiny_classifier, rows):
    options = ("--data", rows, "--keep-ratios", "1,0.5,0.5", "--no-timing", "--threads", 1)
    result = json_of("eval", tiny_classifier, *options)
    assert result["command"] == "eval" and result["timing"] is None
    assert result["pruning"]["keep_ratios"] == [1.0, 0.5, 0.5]
    evaluation = result["evaluation"]
    assert evaluation["rows"] == 10 and evaluation["max_length"] == 64

    model = tk.PrunedBertForSequenceClassification.from_pretrained(tiny_classifier, pruning=tk.PruningConfig.top([1, 0.5, 0.5]))
    tokenizer, hits = AutoTokenizer.from_pretrained(tiny_classifier), 0
    for text, there in sentences(10, 5, "cat"):
        with torch.no_grad():
            hits += int(model.eval()(**tokenizer(text, return_tensors="pt")).logits.argmax()) == there
    assert evaluation["metrics"]["accuracy"] == pytest.approx(hits / 10)
    code, out, _ = tokprune("eval", tiny_classifier, *options)
    assert code == 0 and f"accuracy {10 * hits:.2f} %" in out
    assert "on 10 rows" in out and "than padded to 64" in out


def test_other_speeds(json_of, tokprune, tiny_classifier, tmp_path):
    """The same weights pruned milder and harsher, fitted on the training rows; the model's own point stays what it was."""
    data = write_folder(tmp_path / "speeds", validation=12, labels=(0, 1))
    options = ("--data", data, "--keep-ratios", "1,0.6,0.6", "--no-timing", "--threads", 1)
    result = json_of("eval", tiny_classifier, *options, "--speedups", 1.2, 1.6)
    mild, harsh = result["operating_points"]
    assert (mild["speedup"], harsh["speedup"]) == (1.2, 1.6)
    for point in (mild, harsh):
        assert point["evaluation"]["flops_reduction"]["packed"] == pytest.approx(point["speedup"], rel=0.12)
        assert point["evaluation"]["rows"] == 12
    assert mild["pruning"]["keep_ratios"][1] > 0.6 > harsh["pruning"]["keep_ratios"][1]
    assert result["evaluation"] == json_of("eval", tiny_classifier, *options)["evaluation"]
    code, out, _ = tokprune("eval", tiny_classifier, *options, "--speedups", 1.6)
    assert code == 0 and "asked for" in out and "1.6x" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--keep-ratios", "1,0.6,0.6", "--speedups", 1), "above 1, got 1"), (("--keep-ratios", "1,1,1", "--speedups", 2), "prunes nothing")],
)
def test_speeds_that_cannot_be(tokprune, tiny_classifier, rows, options, said):
    assert said in fails(tokprune, tiny_classifier, "--data", rows, *options)


def test_timing(json_of, tiny_classifier, rows):
    result = json_of("eval", tiny_classifier, "--data", rows, "--repeats", 1, "--time-rows", 4, "--batch", 2, "--threads", 1)
    assert set(result["timing"]["timings"]) == {"padded", "packed", "pruned"}
    assert all(check["passed"] for check in result["timing"]["checks"])


def test_split(json_of, tiny_classifier, tmp_path):
    (tmp_path / "data").mkdir()
    for split, count in (("train", 6), ("test", 4), ("validation", 2)):
        rows = [{"text": text, "label": there} for text, there in sentences(count, 1, "cat")]
        write_rows(tmp_path / "data" / f"{split}.jsonl", rows)
    options = ("--data", tmp_path / "data", "--no-timing")
    assert json_of("eval", tiny_classifier, *options)["evaluation"]["rows"] == 2
    assert json_of("eval", tiny_classifier, *options, "--eval-split", "test")["evaluation"]["rows"] == 4


def test_what_training_saved(json_of, tokprune, tiny_bert, folder, tmp_path):
    """Labels by name, the pruning that the checkpoint carries, and the score that training reported for it."""
    options = ("--data", folder, "--threads", 1)
    training = ("--model", tiny_bert, "--output", tmp_path / "out", "--final-keep", 0.5, "--whole-layers", 1, "--distillation", 0)
    code, _, errors = tokprune("train", "topk", *training, *options, "--epochs", 1, "--batch", 8)
    assert code == 0, errors
    result = json_of("eval", tmp_path / "out" / "model", *options, "--no-timing")
    trained = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["evaluation"] == trained["evaluation"]
    assert result["pruning"]["keep_ratios"] == trained["pruning"]["keep_ratios"]


def test_regression_on_pairs(json_of, tokprune, tiny_bert, tmp_path):
    data = write_pairs(tmp_path / "pairs")
    training = ("--model", tiny_bert, "--data", data, "--output", tmp_path / "out", "--epochs", 1, "--batch", 8)
    code, _, errors = tokprune("train", "dense", *training)
    assert code == 0, errors
    result = json_of("eval", tmp_path / "out" / "model", "--data", data, "--no-timing")
    assert set(result["evaluation"]["metrics"]) == {"pearson", "spearman"}


def fails(tokprune, *arguments):
    code, _, errors = tokprune("eval", *arguments)
    assert code == 1 and errors.count("\n") == 1, errors
    return errors


def test_model_without_a_head(tokprune, tiny_bert, rows):
    assert "has no classification head (BertModel): train one" in fails(tokprune, tiny_bert, "--data", rows)


def test_unusable_data(tokprune, tiny_classifier, folder, tmp_path):
    assert "label 'no' is none that the task has: 'LABEL_0', 'LABEL_1'" in fails(tokprune, tiny_classifier, "--data", folder)
    (tmp_path / "empty").mkdir()
    assert "unusable data: no data in" in fails(tokprune, tiny_classifier, "--data", tmp_path / "empty")


def test_column_that_is_not_there(tokprune, tiny_classifier, rows):
    assert "no text column: looked for 'x'" in fails(tokprune, tiny_classifier, "--data", rows, "--text-column", "x")
