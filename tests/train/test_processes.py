"""Two processes that share a batch train as one process with the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokprune_train import processes as train_processes

ROOT = Path(__file__).parents[2]
# where what the pruners learn starts from, see processes_worker
START = {"pruner.delta": 0.0, "pruner.gates.fine": 0.5, "pruner.lagrangian.linear": 0.0, "pruner.lagrangian.quadratic": 5.0}


def trained(method, folder, processes):
    """The state that training in so many processes ends in."""
    folder.mkdir()
    command = [sys.executable]
    if processes > 1:
        # --standalone: a free port; several trainings on one machine do not meet
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command += ["-m", "tests.train.processes_worker"]
    paths = [str(ROOT), str(ROOT / "python"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*command, method, str(folder)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((folder / "processes.json").read_text()) == processes
    return torch.load(folder / "state.pt"), [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", ["ltp", "top"])
def test_two_processes_train_as_one(method, tmp_path):
    """Weights, thresholds or gates, and multipliers, after twelve steps: measured 3e-7 apart, the order of float32 sums.

    Biases of keys, which get no gradient but rounding, stay as they are (processes_worker.py).
    """
    (alone, log), (together, shared_log) = (trained(method, tmp_path / str(count), count) for count in (1, 2))
    for name, weights in alone.items():
        assert (together[name] - weights).abs().max() <= 2e-6, name
    learned = {"ltp": "pruner.delta", "top": "pruner.gates.fine"}[method]
    for name in (learned, "pruner.lagrangian.linear", "pruner.lagrangian.quadratic"):
        assert (alone[name] - START[name]).abs().max() > 0.01, f"{name} must have moved"
    for line, shared in zip(log[:-1], shared_log[:-1], strict=True):
        assert shared["saved"] == pytest.approx(line["saved"], abs=1e-5)
        assert shared["loss"] == pytest.approx(line["loss"], abs=1e-3)


def test_each_process_trains_on_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert train_processes.device() == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert train_processes.device() == torch.device("cuda:3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert train_processes.device() == torch.device("cpu")
