"""Two processes that share a batch train as one process with the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def trained(method, folder, processes):
    """The state that training in so many processes ends in."""
    folder.mkdir()
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_addr", "127.0.0.1"]
        command += ["--master_port", "0", "--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0"]
    command += ["-m", "tests.train.processes_worker"] if processes == 1 else ["--module", "tests.train.processes_worker"]
    paths = [str(ROOT), str(ROOT / "python"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*command, method, str(folder)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((folder / "processes.json").read_text()) == processes
    return torch.load(folder / "state.pt"), [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", ["ltp", "top"])
def test_two_processes_train_as_one(method, tmp_path):
    """Weights, thresholds or gates, and multipliers, after twelve steps; the order of float32 sums is all that differs."""
    (alone, log), (together, shared_log) = (trained(method, tmp_path / str(count), count) for count in (1, 2))
    errors = {name: float((together[name].double() - alone[name].double()).abs().max()) for name in alone}
    print(sorted(errors.items(), key=lambda item: -item[1])[:5])
    assert max(errors.values()) <= 1e-5, {name: error for name, error in errors.items() if error > 1e-5}
    learned = {"ltp": "pruner.delta", "top": "pruner.gates.fine"}[method]
    for name in (learned, "pruner.lagrangian.linear", "pruner.lagrangian.quadratic"):
        assert alone[name].std() > 1e-3 or alone[name].abs() > 1e-3, f"{name} must have moved"
    for line, shared in zip(log[:-1], shared_log[:-1], strict=True):
        assert shared["saved"] == pytest.approx(line["saved"], abs=1e-5)
        assert shared["loss"] == pytest.approx(line["loss"], abs=1e-3)
