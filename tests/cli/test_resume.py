"""`tokprune train --resume`: finished stages are not trained again, what is torn is left out, and what differs from the start is said."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from .labelled import OPTIONS, write_folder
from .stopping import files_of

datasets = pytest.importorskip("datasets", reason="needs datasets")

LTP = ("--speedup", 1.4, "--soft-epochs", 1, "--threshold-lr", 0.1, "--checkpoints", 2, "--epochs", 2)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("resume") / "data", labels=(0, 1))


@pytest.fixture
def command(tiny_classifier, data):
    return ("train", "ltp", "--model", tiny_classifier, "--data", data, *OPTIONS, *LTP)


@pytest.fixture
def whole(tokprune, command, tmp_path):
    """The output of an undisturbed training."""
    code, _, errors = tokprune(*command, "--output", tmp_path / "whole")
    assert code == 0, errors
    return tmp_path / "whole"


class Stop(TrainerCallback):
    """Interrupts after these steps of the stages in which it is."""

    def __init__(self, stage, step):
        self.stage, self.step = stage, step

    def on_step_begin(self, args, state, control, **kwargs):
        if args.output_dir.endswith(self.stage) and state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def interrupted(tokprune, command, tmp_path, monkeypatch):
    """The output of one that is interrupted in a stage."""
    from tokprune_train.trainer import StudentTrainer

    def run(stage, step, *arguments):
        begin = StudentTrainer.__init__

        def init(self, *given):
            begin(self, *given)
            self.add_callback(Stop(stage, step))

        with monkeypatch.context() as patched:
            patched.setattr(StudentTrainer, "__init__", init)
            code, _, errors = tokprune(*command, *arguments, "--output", tmp_path / "out")
        assert code == 130, errors
        return tmp_path / "out"

    return run


def same(output, whole):
    """The model's bits, and the lines of the logs."""
    assert files_of(output / "model") == files_of(whole / "model")
    for stage in ("soft", "hard"):
        logs = [[json.loads(line)["step"] for line in (each / stage / "log.jsonl").read_text().splitlines()] for each in (output, whole)]
        assert logs[0] == logs[1], stage


def test_a_finished_stage_is_skipped(tokprune, command, whole, interrupted, monkeypatch):
    from tokprune_train import trainer

    output = interrupted("hard", 7)
    assert (output / "soft" / "end").is_dir() and not (output / "result.json").exists()
    trained = []
    monkeypatch.setattr(trainer.StudentTrainer, "train", lambda self, _train=trainer.StudentTrainer.train, **how: trained.append(how) or _train(self, **how))
    code, _, errors = tokprune(*command, "--output", output, "--resume")
    assert code == 0, errors
    assert [how["resume_from_checkpoint"] for how in trained] == [str(output / "hard" / "checkpoint-6")]
    same(output, whole)
    assert not (output / "soft" / "end").exists() and not (output / "hard" / "end").exists(), "needed no more"


def test_an_end_whose_evaluation_was_cut_off(tokprune, command, whole, tmp_path, monkeypatch):
    """Nothing is trained a second time."""
    from tokprune_train import trainer, workspace

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(workspace, "evaluate", stop)
        assert tokprune(*command, "--output", tmp_path / "out")[0] == 130
    monkeypatch.setattr(trainer.StudentTrainer, "train", stop)
    code, _, errors = tokprune(*command, "--output", tmp_path / "out", "--resume")
    assert code == 0, errors
    same(tmp_path / "out", whole)


@pytest.mark.parametrize("missing", ["pruning.json", "complete.json", "optimizer.pt", "half of the weights"])
def test_a_torn_checkpoint_is_left_out(tokprune, command, whole, interrupted, missing):
    """The newest that is whole counts, or none."""
    output = interrupted("hard", 7)
    newest = output / "hard" / "checkpoint-6"
    torn = output / "hard" / "checkpoint-7"
    shutil.copytree(newest, torn)
    if missing == "half of the weights":
        weights = torn / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    else:
        (torn / missing).unlink()
    if missing == "pruning.json":
        (newest / missing).unlink()
    code, _, errors = tokprune(*command, "--output", output, "--resume")
    assert code == 0, errors
    same(output, whole)


def test_a_result_that_is_torn_is_none(tokprune, command, whole):
    expected = files_of(whole / "model")
    for content in ("", "{", "[]"):
        (whole / "result.json").write_text(content)
        code, out, errors = tokprune(*command, "--output", whole, "--resume")
        assert code == 0 and "nothing to resume" not in out, errors
        assert files_of(whole / "model") == expected and json.loads((whole / "result.json").read_text())["evaluation"]


def test_answers_that_cannot_be_read_are_asked_for_again(tokprune, command, tmp_path):
    for content in (None, b"", b"half"):
        for kept in (tmp_path / "answers").glob("*"):
            kept.write_bytes(content)
        code, _, errors = tokprune(*command, "--output", tmp_path / f"out {content}", "--answers", tmp_path / "answers")
        assert code == 0, errors
    (kept,) = (tmp_path / "answers").iterdir()
    assert kept.stat().st_size > 1000


def test_the_first_times_are_kept(tokprune, command, interrupted):
    """No two measurements agree; what is gone on with is under the first one."""
    output = interrupted("soft", 4, "--latency", "--speedup", 1.1)
    before = (output / "latency.json").read_bytes()
    code, _, errors = tokprune(*command, "--latency", "--speedup", 1.1, "--output", output, "--resume")
    assert code == 0, errors
    assert (output / "latency.json").read_bytes() == before


def fails(tokprune, *arguments):
    code, _, errors = tokprune(*arguments)
    assert code == 1 and "Traceback" not in errors, errors
    return errors.splitlines()[-1]


def test_what_differs_from_the_start(tokprune, command, interrupted, tiny_classifier, tmp_path):
    output = interrupted("soft", 4)
    again = (*command, "--output", output, "--resume")
    line = fails(tokprune, *again, "--lr", 5e-4, "--score-denominator", 8, "--speedup", 1.5)
    assert "and this differs: " in line
    for said in ("--lr was 0.001 and is 0.0005", "--speedup was 1.4 and is 1.5", "--score-denominator was kept and is 8"):
        assert said in line
    assert line.count("; --") == 2, f"and nothing else: {line}"
    other = write_folder(tmp_path / "other", train=48, labels=(0, 1))
    assert "--data has another content" in fails(tokprune, *again, "--data", other)
    model = shutil.copytree(tiny_classifier, tmp_path / "model")
    assert tokprune(*again, "--model", model, "--checkpoints", 3)[0] == 0, "the same model, elsewhere; checkpoints are no part of it"
    shutil.rmtree(output)
    output = interrupted("soft", 4)
    weights = load_file(model / "model.safetensors")
    weights["classifier.bias"] += 1
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    assert "--model has another content" in fails(tokprune, *again, "--model", model)


def test_another_training_in_the_folder_begins_anew(tokprune, command, interrupted, tmp_path):
    """Without --resume nothing of the first one's is gone on with, not even after an interruption."""
    interrupted("hard", 7)
    output = interrupted("soft", 2, "--seed", 1)
    assert not list(output.glob("hard/checkpoint-*")) and not (output / "soft" / "end").exists()
    assert tokprune(*command, "--seed", 1, "--output", output, "--resume")[0] == 0
    assert tokprune(*command, "--seed", 1, "--output", tmp_path / "whole")[0] == 0
    same(output, tmp_path / "whole")
