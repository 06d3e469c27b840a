"""NaN and infinity: a training that comes to them stops, keeps what was good before, and nothing of them is scored or saved."""

import inspect

import pytest
import torch
import transformers
from safetensors.torch import load_file

from .labelled import OPTIONS, sentences, write_folder, write_rows

datasets = pytest.importorskip("datasets", reason="needs datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def fails(tokprune):
    """The one line of a command that cannot be."""

    def run(*arguments, code=1):
        found, out, errors = tokprune(*arguments)
        assert found == code and "Traceback" not in errors and "score" not in out, errors
        return errors.splitlines()[-1]

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("not_finite") / "data", labels=(0, 1))


def nothing_made(output):
    return not (output / "result.json").exists() and not (output / "model").exists()


def test_a_learning_rate_that_is_too_high(fails, tiny_classifier, data, tmp_path):
    """In either stage; from the line one can tell which, when, and what is left."""
    given = ("--model", tiny_classifier, "--data", data, "--output", tmp_path / "out", *OPTIONS)
    line = fails("train", "dense", *given, "--lr", 1e38, "--epochs", 3)
    assert "is not finite (stage 'dense', 15 steps): the training stops" in line or "are not finite any more" in line
    assert "there is no checkpoint" in line and nothing_made(tmp_path / "out")
    given = ("--model", tiny_classifier, "--data", data, "--output", tmp_path / "hard", *OPTIONS)
    line = fails("train", "ltp", *given, "--soft-lr", 1e-4, "--lr", 1e38, "--epochs", 3, "--regularizer", 0)
    assert "stage 'hard'" in line and nothing_made(tmp_path / "hard")


def test_the_last_good_checkpoint_stays(tokprune, fails, tiny_classifier, data, tmp_path, monkeypatch):
    """Weights that break at a step, some checkpoints on: the one from before is whole and finite, and is gone on from."""
    from tokprune_train.trainer import StudentCallback

    def breaks(self, args, state, control, **kwargs):
        if state.global_step == 8:
            with torch.no_grad():
                self.student.model.classifier.bias[0] = float("nan")

    given = ("train", "dense", "--model", tiny_classifier, "--data", data, *OPTIONS, "--epochs", 2, "--checkpoints", 4)
    assert tokprune(*given, "--output", tmp_path / "whole")[0] == 0
    with monkeypatch.context() as patched:
        patched.setattr(StudentCallback, "on_step_end", breaks)
        line = fails(*given, "--output", tmp_path / "out")
    assert "the weights are not finite any more, model.classifier.bias the first" in line
    assert "the checkpoint of step 6 stays" in line and nothing_made(tmp_path / "out")
    (kept,) = (tmp_path / "out" / "dense").glob("checkpoint-*")
    assert all(bool(tensor.isfinite().all()) for tensor in load_file(kept / "model.safetensors").values())
    assert tokprune(*given, "--output", tmp_path / "out", "--resume")[0] == 0
    a, b = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "out"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_first_loss_ends_it(fails, tiny_classifier, data, tmp_path, monkeypatch):
    """Before the weights have moved by it."""
    from tokprune_train.student import Student

    forward = Student.forward

    def broken(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        return output | {"loss": output["loss"] * (float("inf") if self.step == 3 else 1)}

    broken.__signature__ = inspect.signature(forward)  # from which transformers' Trainer reads what it may pass
    monkeypatch.setattr(Student, "forward", broken)
    given = ("--model", tiny_classifier, "--data", data, "--output", tmp_path / "out", *OPTIONS)
    line = fails("train", "dense", *given, "--epochs", 2)
    assert "the loss of step 4 is not finite (stage 'dense', 10 steps)" in line and nothing_made(tmp_path / "out")


def huge(folder, tiny_classifier):
    """A classifier whose weights are finite and whose answers are not."""
    model = transformers.BertForSequenceClassification.from_pretrained(tiny_classifier)
    with torch.no_grad():
        model.classifier.weight.fill_(3e38)
        model.bert.pooler.dense.bias.fill_(10.0)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_classifier).save_pretrained(folder)
    return folder


def test_answers_that_are_not_finite(fails, tiny_classifier, data, text_file, tmp_path):
    model, output = huge(tmp_path / "huge", tiny_classifier), tmp_path / "out"
    said = "the model's answers are not finite (NaN or infinity) for"
    assert said in fails("eval", model, "--data", data, "--json", tmp_path / "some.json")
    assert said in fails("calibrate", model, "--text", text_file, "--speedup", 1.2, "--output", output)
    for teacher in ((), ("--token-distillation", 1)):
        given = ("--model", tiny_classifier, "--teacher", model, "--data", data, "--output", output, "--final-keep", 0.5, "--whole-layers", 1)
        assert "not finite" in fails("train", "topk", *given, *OPTIONS, *teacher)
    assert not output.exists() or nothing_made(output)
    assert not (tmp_path / "some.json").exists()


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e300"])
def test_labels(fails, tiny_bert, tmp_path, value):
    for split in ("train", "validation"):
        rows = [{"text": text, "label": 0.5 + there} for text, there in sentences(16, 5, "cat")]
        write_rows(tmp_path / f"{split}.jsonl", rows)
        with (tmp_path / f"{split}.jsonl").open("a") as stream:
            stream.write('{"text": "a cat", "label": ' + value + "}\n")
    line = fails("train", "dense", "--model", tiny_bert, "--data", tmp_path, "--output", tmp_path / "out", *OPTIONS)
    assert "unusable data: " in line and ("finite" in line or "JSON" in line or "label" in line)


@pytest.mark.parametrize(
    "option",
    [("--lr", -1), ("--lr", "nan"), ("--weight-decay", "nan"), ("--epochs", -1), ("--epochs", "inf"), ("--epochs", "1e300"), ("--checkpoints", -1)]
    + [("--temperature", 0, 0), ("--temperature", "nan", 1), ("--soft-epochs", "1e300"), ("--warmup", 2), ("--threshold-lr", "inf")],
)
def test_options(fails, tiny_classifier, data, tmp_path, option):
    given = ("train", "ltp", "--model", tiny_classifier, "--data", data, "--output", tmp_path / "out", "--batch", 8)
    line = fails(*given, *option, code=2)
    assert f"argument {option[0]}" in line and "is not a " in line
    assert not (tmp_path / "out").exists()
