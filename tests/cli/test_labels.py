"""Labels and heads: the data's names are the model's, whatever number either gives them; other classes, other kinds of heads, and none."""

import json
import shutil

import pytest
import torch
import transformers

from .labelled import OPTIONS, sentences, write_folder, write_rows

datasets = pytest.importorskip("datasets", reason="needs datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def save(folder, tiny_bert, names=None, **config):
    """A classifier from the tiny BERT; names: of its classes, in the order of its outputs."""
    if names is not None:
        config |= {"id2label": dict(enumerate(names)), "label2id": {name: code for code, name in enumerate(names)}}
    transformers.BertForSequenceClassification.from_pretrained(tiny_bert, **config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return folder


def swapped(model, folder):
    """The same classifier with its two outputs in the other order."""
    shutil.copytree(model, folder)
    loaded = transformers.BertForSequenceClassification.from_pretrained(model)
    with torch.no_grad():
        for tensor in (loaded.classifier.weight, loaded.classifier.bias):
            tensor.copy_(tensor.flip(0))
    loaded.save_pretrained(folder)
    config = json.loads((model / "config.json").read_text())
    names = [config["id2label"]["1"], config["id2label"]["0"]]
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: code for code, name in enumerate(names)}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def perfect(tmp_path_factory, tiny_bert):
    """(a classifier that knows a cat when it sees one, its data): outputs cat, no."""
    from tokprune_kernels.cli.main import main

    folder = tmp_path_factory.mktemp("perfect")
    data = write_folder(folder / "data", train=160)
    given = ("--model", tiny_bert, "--data", data, "--output", folder / "out", *OPTIONS, "--epochs", 12, "--lr", 3e-3)
    assert main([str(argument) for argument in ("train", "dense", *given)]) == 0
    return folder / "out" / "model", data


def accuracy(result):
    return result["evaluation"]["metrics"]["accuracy"]


def as_class_labels(data, folder):
    """The same rows with numbers for the labels and the names beside them, in the order of `datasets`."""
    splits = {
        split: [json.loads(line) for line in (data / f"{split}.jsonl").read_text().splitlines()] for split in ("train", "validation")
    }
    names = datasets.ClassLabel(names=["cat", "no"])
    made = {split: datasets.Dataset.from_list(rows).cast_column("label", names) for split, rows in splits.items()}
    datasets.DatasetDict(made).save_to_disk(folder)
    return folder


@pytest.mark.parametrize("kind", ["names", "class labels"])
def test_a_head_in_another_order_answers_the_same(json_of, tokprune, perfect, tmp_path, kind):
    model, data = perfect
    other = swapped(model, tmp_path / "swapped")
    source = data if kind == "names" else as_class_labels(data, tmp_path / "saved")
    known = accuracy(json_of("eval", model, "--data", source, "--no-timing"))
    assert known > 0.9
    assert accuracy(json_of("eval", other, "--data", source, "--no-timing")) == known
    given = ("--model", other, "--data", source, "--output", tmp_path / "out", *OPTIONS, "--lr", 1e-5, "--soft-epochs", 0.2)
    code, _, errors = tokprune("train", "ltp", *given, "--regularizer", 0, "--epochs", 0.2)
    assert code == 0, errors
    assert accuracy(json.loads((tmp_path / "out" / "result.json").read_text())) > 0.8
    saved = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
    assert saved["id2label"] == {"0": "no", "1": "cat"}, "the names that its outputs had"


@pytest.fixture
def fails(tokprune, tmp_path):
    """The one line of a command that cannot be."""

    def run(*arguments):
        code, _, errors = tokprune(*arguments)
        assert code == 1 and "Traceback" not in errors, errors
        assert errors.splitlines()[-1].startswith("tokprune ") and "error: " in errors.splitlines()[-1]
        assert not (tmp_path / "out" / "result.json").exists()
        return errors.splitlines()[-1]

    return run


def rows_with(path, labels):
    write_rows(path, [{"text": text, "label": labels[there]} for text, there in sentences(24, 5, "cat")])
    return path


def test_other_classes_than_the_models(fails, perfect, tmp_path):
    model, _ = perfect
    data = write_folder(tmp_path / "other", labels=("dog", "cat"))
    said = "label 'dog' is none that the task has: 'cat', 'no'"
    assert said in fails("eval", model, "--data", data)
    assert said in fails("train", "ltp", "--model", model, "--data", data, "--output", tmp_path / "out", *OPTIONS)


def test_numbers_with_a_fraction_on_classes(fails, perfect, tmp_path):
    model, _ = perfect
    for split in ("train", "validation"):
        rows_with(tmp_path / f"{split}.jsonl", (0.5, 2.0))
    said = "labels are numbers with a fraction (0.5, 2.0), and the model answers with one of 2 classes"
    assert said in fails("eval", model, "--data", tmp_path)
    assert said in fails("train", "dense", "--model", model, "--data", tmp_path, "--output", tmp_path / "out", *OPTIONS)


def test_numbers_as_text_are_a_regression(json_of, tokprune, tiny_bert, tmp_path):
    for split in ("train", "validation"):
        rows_with(tmp_path / f"{split}.jsonl", ("0.5", "2"))
    code, _, errors = tokprune("train", "dense", "--model", tiny_bert, "--data", tmp_path, "--output", tmp_path / "out", *OPTIONS)
    assert code == 0, errors
    assert json.loads((tmp_path / "out" / "model" / "config.json").read_text())["problem_type"] == "regression"
    metrics = json_of("eval", tmp_path / "out" / "model", "--data", tmp_path, "--no-timing")["evaluation"]["metrics"]
    assert set(metrics) == {"pearson", "spearman"}


@pytest.mark.parametrize(
    ("problem", "said"), [("multi_label_classification", "several labels at once"), ("regression", "predicts 3 numbers")]
)
def test_heads_of_another_kind(fails, tiny_bert, text_file, tmp_path, problem, said):
    model = save(tmp_path / "model", tiny_bert, num_labels=3, problem_type=problem)
    for split in ("train", "validation"):
        rows_with(tmp_path / f"{split}.jsonl", (0, 1))
    assert said in fails("eval", model, "--data", tmp_path)
    assert said in fails("train", "dense", "--model", model, "--data", tmp_path, "--output", tmp_path / "out", *OPTIONS)
    assert said in fails("calibrate", model, "--text", text_file, "--speedup", 1.2)


@pytest.mark.parametrize("method", [("ltp", "--speedup", 1.2), ("top", "--speedup", 1.2), ("topk", "--final-keep", 0.5)])
def test_a_teacher_without_a_head(fails, tiny_bert, perfect, tmp_path, method):
    """Random answers teach nothing, from the model itself or from another."""
    model, data = perfect
    name, *options = method
    said = "has no trained head, so that there are no answers of a dense model to learn from"
    given = ("--data", data, "--output", tmp_path / "out", *OPTIONS, *options)
    assert said in fails("train", name, "--model", tiny_bert, *given)
    assert said in fails("train", name, "--model", model, "--teacher", tiny_bert, *given)


def test_a_teacher_of_other_classes(fails, perfect, tiny_bert, tmp_path):
    model, data = perfect
    given = ("train", "topk", "--model", model, "--data", data, "--output", tmp_path / "out", "--final-keep", 0.5, *OPTIONS)
    other = swapped(model, tmp_path / "swapped")
    assert "must answer the same ones in the same order" in fails(*given, "--teacher", other)
    three = save(tmp_path / "three", tiny_bert, num_labels=3)
    assert "has 3 output(s), and the task 2" in fails(*given, "--teacher", three)


@pytest.fixture
def broken(tmp_path, perfect):
    """Makes a copy of the classifier with its tensors changed."""
    from safetensors.torch import load_file, save_file

    def make(change):
        folder = tmp_path / "broken"
        shutil.copytree(perfect[0], folder)
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make


def commands(model, perfect, text_file, output):
    """Everything that runs a model."""
    data = ("--data", perfect[1])
    yield "eval", model, *data
    yield "calibrate", model, "--text", text_file, "--speedup", 1.2, "--output", output
    yield "train", "topk", "--model", model, *data, "--output", output, "--final-keep", 0.5, *OPTIONS
    yield "train", "topk", "--model", perfect[0], "--teacher", model, *data, "--output", output, "--final-keep", 0.5, *OPTIONS
    yield "bench", model, "--text", text_file
    yield "show", model, "a cat"


def test_a_weight_that_is_missing(fails, broken, perfect, text_file, tmp_path):
    model = broken(lambda tensors: tensors.pop("bert.encoder.layer.1.output.dense.weight"))
    for command in commands(model, perfect, text_file, tmp_path / "out"):
        assert "lacks 1 of the weights of a BertForSequenceClassification: bert.encoder.layer.1.output.dense.weight" in fails(*command), command


def test_a_weight_that_is_not_finite(fails, broken, perfect, text_file, tmp_path):
    model = broken(lambda tensors: tensors["bert.pooler.dense.bias"].fill_(float("nan")))
    for command in commands(model, perfect, text_file, tmp_path / "out"):
        assert "has weights that are not finite (NaN or infinity) in 1 of its tensors, bert.pooler.dense.bias the first" in fails(*command)


def test_more_tokens_than_embeddings(fails, perfect, text_file, tmp_path):
    model = tmp_path / "more"
    shutil.copytree(perfect[0], model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["another", "one"])
    tokenizer.save_pretrained(model)
    for command in commands(model, perfect, text_file, tmp_path / "out"):
        if "--teacher" not in command:
            assert "the tokenizer of" in (said := fails(*command)) and "has embeddings for" in said, command
