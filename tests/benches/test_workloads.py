"""The batches that the model benchmark runs."""

import pytest

torch = pytest.importorskip("torch")

from workloads import SHAPES, SORTED, TASKS, all_workloads, as_they_come, similar_lengths  # noqa: E402


def test_every_workload_is_well_formed():
    workloads = {workload.name: workload for workload in all_workloads()}
    assert len(workloads) == len(all_workloads()) == len(SHAPES) + 2 * len(TASKS) + 2, "names are keys of the results"
    for workload in workloads.values():
        assert workload.padded_tokens == sum(batch["attention_mask"].numel() for batch in workload.batches)
        for batch in workload.batches:
            ids, mask = batch["input_ids"], batch["attention_mask"]
            assert ids.shape == mask.shape and ids.dtype == mask.dtype == torch.int64
            assert torch.equal(mask, mask.sort(dim=1, descending=True).values), "padding is on the right"
            assert torch.equal(ids > 0, mask.bool()) and (mask.sum(1) > 0).all()
            assert ids.shape[1] == (workload.padded_to or int(mask.sum(1).max()))


def test_fixed_shapes_have_no_padding():
    for workload in all_workloads()[: len(SHAPES)]:
        assert int(workload.lengths.sum()) == workload.padded_tokens


@pytest.mark.parametrize("task", TASKS)
def test_similar_lengths_pad_less_and_hold_about_as_many_tokens(task):
    size, count = TASKS[task]
    plain, similar = as_they_come(task), similar_lengths(task)
    assert [len(batch) for batch in similar] == [len(batch) for batch in plain] == [size] * count
    assert sum(map(max, similar)) <= sum(map(max, plain)) and SORTED[task] >= size * count
    assert all(batch == sorted(batch) for batch in similar)
    tokens = [sum(map(sum, batches)) for batches in (plain, similar)]
    assert 0.7 < tokens[1] / tokens[0] < 1.4


def test_padded_to_the_maximum_holds_the_same_texts():
    workloads = {workload.name: workload for workload in all_workloads()}
    for name, plain in (("sst2 padded to 64", "sst2 batches of 32"), ("mrpc padded to 128", "mrpc batches of 32")):
        assert torch.equal(workloads[name].lengths, workloads[plain].lengths)
        assert {batch["input_ids"].shape[1] for batch in workloads[name].batches} == {workloads[name].padded_to}


def test_the_tokens_are_the_same_every_time():
    for one, again in zip(all_workloads(), all_workloads(), strict=True):
        assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(one.batches, again.batches, strict=True))
