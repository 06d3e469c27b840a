"""Trainings and calibrations that are killed where they stand and gone on with: bit for bit what comes of them undisturbed.

A few random moments of each are tried; TOKPRUNE_STOPS=N tries N of each (and seeds them by the time), for an hour of it by hand.
"""

import json
import os
import random
import time

import pytest

from .labelled import sentences, write_folder
from .stopping import Runner, files_of

datasets = pytest.importorskip("datasets", reason="needs datasets")

STOPS = int(os.environ.get("TOKPRUNE_STOPS", 0))
OPTIONS = ("--batch", 8, "--lr", 1e-3, "--epochs", 1, "--threads", 1, "--checkpoints", 2)
METHODS = {
    "dense": (),
    "ltp": ("--speedup", 1.4, "--soft-epochs", 1, "--threshold-lr", 0.1),
    "top": ("--speedup", 1.4, "--soft-epochs", 1, "--token-distillation", 1),
    "hard": ("--keep-ratios", "1,0.7,0.5"),
    "fixed": ("--final-threshold", 0.09),
    "topk": ("--final-keep", 0.5, "--whole-layers", 1),
}


@pytest.fixture(scope="module")
def runner():
    with Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def start(runner, tmp_path_factory, tiny_bert):
    """(a dense model, its data)."""
    folder = tmp_path_factory.mktemp("start")
    data = write_folder(folder / "data")
    given = ("--model", tiny_bert, "--data", data, "--output", folder / "dense", "--batch", 8, "--epochs", 1, "--lr", 1e-3, "--threads", 1)
    done = runner.run("train", "dense", *given, inside=folder)
    assert done["code"] == 0, done["errors"]
    return folder / "dense" / "model", data


def moments(touches, some):
    """Touches to be killed at."""
    chosen = random.Random(time.time() if STOPS else 7)
    return sorted(chosen.sample(range(1, touches + 1), min(touches, STOPS or some)))


def made(output):
    """What a training is for: the model's files, and the result but for the time that it took."""
    result = json.loads((output / "result.json").read_text())
    for name in ("train_seconds", "machine"):
        result.pop(name)
    for name in ("output", "resume"):
        result["arguments"].pop(name)
    logs = {stage: log_of(output / stage) for stage in ("dense", "soft", "hard") if (output / stage).is_dir()}
    return files_of(output / "model"), result, logs


def log_of(stage):
    """Steps of the lines that were logged."""
    return [json.loads(line)["step"] for line in (stage / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", METHODS)
def test_a_training_that_is_killed(runner, start, tmp_path, method):
    """At one touch of its files, then gone on with and killed again, until it is done."""
    model, data = start
    whole = tmp_path / "whole"
    command = ("train", method, "--model", model, "--data", data, *METHODS[method], *OPTIONS)
    done = runner.run(*command, "--output", whole, inside=whole)
    assert done["code"] == 0, done["errors"]
    expected = made(whole)
    assert sorted(path.name for path in whole.iterdir() if path.name.startswith(".")) == []
    for moment in moments(done["touches"], 2):
        output = tmp_path / f"killed at {moment}"
        stopped = runner.run(*command, "--output", output, inside=output, kill_at=moment)
        assert stopped["code"] == -9, stopped["errors"]
        again = runner.run(*command, "--output", output, "--resume", inside=output, kill_at=1 + moment // 3)
        assert again["code"] in (-9, 0), again["errors"]
        if again["code"]:
            done = runner.run(*command, "--output", output, "--resume", inside=output)
            assert done["code"] == 0, done["errors"]
        assert made(output) == expected, f"{method} killed at touch {moment}"
        assert [path.name for path in output.rglob("*") if "unfinished" in path.name] == []


def test_a_calibration_that_is_killed(runner, start, tmp_path):
    """There is no model, or the whole one; and over one that was there, the old one, none that loads, or the new one."""
    model, data = start
    lines = tmp_path / "texts.txt"
    lines.write_text("".join(f"{text}\n" for text, _ in sentences(16, 5, "cat")))
    whole, output = tmp_path / "whole", tmp_path / "out"
    command = ("calibrate", model, "--text", lines, "--speedup", 1.3, "--threads", 1)
    done = runner.run(*command, "--output", whole, inside=whole)
    assert done["code"] == 0, done["errors"]
    expected = files_of(whole)
    for moment in moments(done["touches"], 4):
        stopped = runner.run(*command, "--output", output, inside=output, kill_at=moment)
        assert stopped["code"] in (-9, 0) and (not output.exists() or files_of(output) == expected)
        done = runner.run(*command, "--output", output, inside=output)
        assert done["code"] == 0 and {name: files_of(output)[name] for name in expected} == expected
    old = json.loads((output / "config.json").read_text())
    harsher = (*command[:-3], 1.6, *command[-2:])
    touches = runner.run(*harsher, "--output", tmp_path / "other", inside=tmp_path / "other")["touches"]
    new = json.loads((tmp_path / "other" / "config.json").read_text())
    assert new["pruning"] != old["pruning"]
    for moment in moments(touches, 4):
        assert runner.run(*command, "--output", output, inside=output)["code"] == 0
        runner.run(*harsher, "--output", output, inside=output, kill_at=moment)
        assert not (output / "config.json").exists() or json.loads((output / "config.json").read_text()) in (old, new)
