"""Trainings and calibrations that are killed where they stand and gone on with: bit for bit what comes of them undisturbed.

Few moments and sizes are tried, and one method of each kind; TOKPRUNE_STOPS=N tries N of all, others each time, for an hour of it by hand.
"""

import json
import os
import random
import shutil
import subprocess
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


def without_unfinished(folder):
    return {name: content for name, content in files_of(folder).items() if "unfinished" not in name}


def log_of(stage):
    """Steps of the lines that were logged."""
    return [json.loads(line)["step"] for line in (stage / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", METHODS if STOPS else ("dense", "ltp", "top"))
def test_a_training_that_is_killed(runner, start, tmp_path, method):
    """At one touch of its files, then gone on with and killed again, until it is done."""
    model, data = start
    whole = tmp_path / "whole"
    command = ("train", method, "--model", model, "--data", data, *METHODS[method], *OPTIONS)
    done = runner.run(*command, "--output", whole, inside=whole)
    assert done["code"] == 0, done["errors"]
    expected = made(whole)
    assert sorted(path.name for path in whole.iterdir() if path.name.startswith(".")) == []
    for moment in moments(done["touches"], 1):
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
    place = tmp_path / "place"
    place.mkdir()
    whole, output = place / "whole", place / "out"
    command = ("calibrate", model, "--text", lines, "--speedup", 1.3, "--threads", 1)
    done = runner.run(*command, "--output", whole, inside=place)
    assert done["code"] == 0, done["errors"]
    expected = files_of(whole)
    for moment in moments(done["touches"], 3):
        stopped = runner.run(*command, "--output", output, inside=place, kill_at=moment)
        assert stopped["code"] in (-9, 0) and (not output.exists() or without_unfinished(output) == expected)
        done = runner.run(*command, "--output", output, inside=output)
        assert done["code"] == 0 and files_of(output) == expected, "and nothing unfinished is left"
    old = json.loads((output / "config.json").read_text())
    harsher = (*command[:-3], 1.6, *command[-2:])
    touches = runner.run(*harsher, "--output", place / "other", inside=place)["touches"]
    new = json.loads((place / "other" / "config.json").read_text())
    assert new["pruning"] != old["pruning"]
    for moment in moments(touches, 2):
        assert runner.run(*command, "--output", output, inside=output)["code"] == 0
        runner.run(*harsher, "--output", output, inside=place, kill_at=moment)
        assert not (output / "config.json").exists() or json.loads((output / "config.json").read_text()) in (old, new)


@pytest.fixture
def disk(tmp_path):
    """A small disk: a folder, and a function that says how many KiB it has."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder, lambda size: subprocess.run(["mount", "-o", f"remount,size={size}k", folder], check=True)
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_full(runner, start, tmp_path, disk):
    """Whatever its size, a line says so, nothing torn is left, and once there is room the training goes on to the same bits."""
    model, data = start
    command = ("train", "ltp", "--model", model, "--data", data, *METHODS["ltp"], *OPTIONS)
    whole = tmp_path / "whole"
    assert runner.run(*command, "--output", whole, inside=whole)["code"] == 0
    expected, (folder, resize) = made(whole), disk
    sizes = range(4, 1600, 4) if STOPS else (100, 460)
    for size in random.Random(time.time()).sample(sizes, STOPS) if STOPS else sizes:
        resize(size)
        output = folder / "out"
        done = runner.run(*command, "--output", output, inside=output)
        if done["code"]:
            last = done["errors"].splitlines()[-1]
            assert done["code"] == 1 and "Traceback" not in done["errors"], done["errors"]
            assert last.startswith("tokprune train: error: ") and "no space left on" in last.lower(), done["errors"]
            assert not (output / "result.json").exists()
            assert not (output / "model").exists() or files_of(output / "model") == expected[0]
            resize(8000)
            done = runner.run(*command, "--output", output, "--resume", inside=output)
            assert done["code"] == 0, (size, done["errors"])
        assert made(output) == expected, size
        shutil.rmtree(output)


def test_a_disk_too_full_for_what_comes_of_it(runner, start, tmp_path, disk):
    """A calibrated model, and the file of --json."""
    model, data = start
    folder, resize = disk
    sizes = range(4, 400, 4) if STOPS else (60,)
    for size in random.Random(time.time()).sample(sizes, min(STOPS, len(sizes))) if STOPS else sizes:
        resize(size)
        command = ("calibrate", model, "--data", data, "--speedup", 1.3, "--threads", 1)
        for place in (("--output", folder / "out"), ("--json", folder / "some.json"), ("--output", folder)):
            done = runner.run(*command, *place, inside=folder)
            assert done["code"] in (0, 1) and (done["code"] == 0 or "no space left on" in done["errors"].splitlines()[-1].lower()), done
            left = sorted(path.name for path in folder.rglob("*") if path.is_file())
            assert bool(left) == (done["code"] == 0), (size, place, left)
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
