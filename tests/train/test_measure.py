"""Measuring a latency table: what is measured and what comes of it; no time itself is asserted."""

import json
from dataclasses import replace

import pytest
import torch
from tokprune_train.calibration import measure
from tokprune_train.calibration.latency_table import LatencyTable
from tokprune_train.calibration.layer_stack import LayerStack
from tokprune_train.calibration.measure import measure_latency_table

from tokprune_kernels import ops

transformers = pytest.importorskip("transformers", reason="needs transformers")


def small_model(**options):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.BertModel(transformers.BertConfig(vocab_size=50, **sizes, **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_table(dtype):
    seen = []
    table = measure_latency_table(
        small_model().to(dtype), 3, [4, 20, 8], shares=(1.0, 0.5), repeats=4, progress=lambda *done: seen.append(done)
    )
    assert table.tokens == (16, 32) and table.texts == 3 and table.threads == torch.get_num_threads()
    assert table.dtype == str(dtype).removeprefix("torch.") and "cpu" in table.machine
    assert min(table.attention_ms) > 0 and min(table.rest_ms) > 0
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert LatencyTable.from_json(table.to_json()) == replace(table, machine=json.loads(json.dumps(table.machine)))


def test_whole_and_parts_compute_the_same(monkeypatch):
    """What is timed is the model's own work: both ways through the stack end in the same states."""
    stack, ends = LayerStack(small_model().config, torch.float32), {}
    x, cu_seqlens = stack.states(9), torch.tensor([0, 4, 9], dtype=torch.int32)
    run, norm = ops.encoder, ops.add_layer_norm
    monkeypatch.setattr(ops, "encoder", lambda *a, **k: ends.setdefault("whole", run(*a, **k)))
    monkeypatch.setattr(ops, "add_layer_norm", lambda *a: ends.update(parts=norm(*a)) or ends["parts"])
    with torch.inference_mode():
        stack.time_whole(x, cu_seqlens, 5)
        stack.time_parts(x, cu_seqlens, 5)
    assert float(ends["whole"].abs().max()) > 0.1
    torch.testing.assert_close(ends["whole"], ends["parts"], rtol=1e-4, atol=1e-5)


def test_medians_divide_the_whole_as_the_parts_are_divided():
    point = measure._Point(LayerStack(small_model().config, torch.float32), (4, 5))
    point.samples = [(9.0, 1.0, 3.0), (8.0, 2.0, 6.0), (1.0, 50.0, 70.0)]
    assert point.tokens == 9 and point.medians() == pytest.approx((8 * 2 / 8, 8 * 6 / 8))


def test_falling_times_are_cleaned_up(monkeypatch):
    times = iter([(4.0, 2.0, 6.0), (4.0, 2.0, 6.0), (2.0, 1.0, 3.0), (2.0, 1.0, 3.0)])
    later = {16: next(times), 32: next(times), 64: next(times)}
    monkeypatch.setattr(measure._Point, "measure", lambda self: later[self.tokens])
    table = measure_latency_table(small_model(), 1, [64], shares=(0.25, 0.5, 1.0), repeats=1)
    assert table.attention_ms == pytest.approx((2.5 / 3,) * 3) and table.rest_ms == pytest.approx((7.5 / 3,) * 3)


@pytest.mark.parametrize(("texts", "expected"), [(4, (2, 4, 7, 9)), (2, (4, 9)), (1, (7,)), (8, (2, 2, 4, 4, 7, 7, 9, 9))])
def test_batches_follow_the_lengths(texts, expected):
    assert measure._batches(texts, [9, 2, 7, 4], (0.1, 1.0))[-1] == expected


BAD = {
    "float16": lambda: measure_latency_table(small_model().half(), 2, [8]),
    "hidden_act": lambda: measure_latency_table(small_model(hidden_act="silu"), 2, [8]),
    "texts": lambda: measure_latency_table(small_model(), 0, [8]),
    "lengths": lambda: measure_latency_table(small_model(), 2, [8, 0]),
    "shares": lambda: measure_latency_table(small_model(), 2, [8], shares=(0.5, 1.5)),
    "two different sizes": lambda: measure_latency_table(small_model(), 2, [1], shares=(0.5, 1.0)),
}


@pytest.mark.parametrize("named", BAD)
def test_refusals(named):
    with pytest.raises(ValueError, match=named):
        BAD[named]()
