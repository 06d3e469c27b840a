"""The checks of benches/gpu.py, on the CPU's kernels: what is right passes, and what is wrong is named instead of ending the run."""

import pytest
import torch

import tokprune_kernels.ops  # noqa: F401  (defines torch.ops.tokprune)
from tokprune_kernels import reference

checks = pytest.importorskip("gpu_suite.checks")


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)


def test_a_part_of_an_op():
    whole, worst, wrong = checks.check_part("keep_topk", torch.float32, 0)
    assert whole > 50 and worst == 0 and not wrong


def test_parts_are_all_of_an_op(monkeypatch):
    counts = [checks.check_part("varlen_attention", torch.float32, part)[0] for part in range(checks.PARTS["varlen_attention"])]
    monkeypatch.setattr(checks, "PARTS", {})
    assert sum(counts) == checks.check_part("varlen_attention", torch.float32, 0)[0] and min(counts) > 0


def test_what_is_wrong_is_named(monkeypatch):
    monkeypatch.setattr(reference, "compact", lambda x, keep_idx, total: x.new_full((total, *x.shape[1:]), 7))
    _, _, wrong = checks.check_part("compact", torch.float32, 0)
    assert wrong and "output 0: relative error" in wrong[0]


def test_what_cannot_run_is_named(monkeypatch):
    def fail(*args):
        raise RuntimeError("no room\nat all")

    monkeypatch.setattr(reference, "compact", fail)
    _, _, wrong = checks.check_part("compact", torch.float32, 0)
    assert len(wrong) == checks.check_part("compact", torch.float32, 0)[0] and wrong[0].endswith("RuntimeError: no room")
