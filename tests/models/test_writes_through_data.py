"""Writes through `parameter.data`, of which autograd's version counters say nothing: averages of weights, soups, loaders."""

import copy

import pytest
import tokprune_kernels as tk
import torch
from tokprune_kernels.layers.probe import SAMPLES, ContentProbe

from ..oracle import Pruning
from .helpers import pruned_copy, random_batch, random_bert, run

PRUNING = Pruning("topk", (1.0, 0.6, 0.5))
IDS, MASK = random_batch((16, 4, 7))
OTHER = random_bert(seed=7)


def average(model):
    for own, other in zip(model.parameters(), OTHER.parameters(), strict=True):
        own.data.mul_(0.9).add_(other.data.to(own.dtype), alpha=0.1)


def load(model):
    for own, other in zip(model.parameters(), OTHER.parameters(), strict=True):
        own.data.copy_(other.data)


def merge_one(model):
    """A low-rank update of a single weight, as merging a LoRA by hand."""
    weight = model.encoder.layer[1].attention.self.value.weight
    weight.data += torch.randn(64, 2) @ torch.randn(2, 64) / 8


def shift_biases(model):
    for layer in model.encoder.layer:
        layer.attention.self.query.bias.data.add_(0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("write", [average, load, merge_one, shift_biases])
def test_seen_at_the_next_call(write, dtype):
    model = pruned_copy(tk, random_bert(), PRUNING).to(dtype)
    before = run(model, IDS, MASK).last_hidden_state
    write(model)
    after = run(model, IDS, MASK).last_hidden_state
    assert not torch.equal(after, before)
    assert torch.equal(after, run(copy.deepcopy(model), IDS, MASK).last_hidden_state), "as of a model that was never packed"


def test_nothing_is_packed_again_without_a_write():
    model = pruned_copy(tk, random_bert(), PRUNING)
    with torch.no_grad():
        model.encoder.layer[0].output.dense.weight[0, 0] = float("nan")
    run(model, IDS, MASK)
    snapshot = model.encoder.packed_layers._snapshot
    run(model, IDS, MASK)
    assert model.encoder.packed_layers._snapshot is snapshot, "NaN is like itself"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (768, 768), (3072, 768), (7, 1000)])
@pytest.mark.parametrize("transposed", [False, True])
def test_probe(shape, dtype, transposed):
    tensor = torch.randn(shape, dtype=torch.float32).to(dtype)
    tensor = tensor.t() if transposed and len(shape) == 2 else tensor
    probe = ContentProbe([tensor])
    assert probe.holds() and probe.seen.numel() <= 2 * SAMPLES
    tensor += 0.25
    assert not probe.holds()
    assert ContentProbe([]).holds()


def test_probe_reads_rows_and_columns():
    """Scaling one row or column in eight is noticed in a weight of BERT's size."""
    for rows in (slice(0, None, 8), slice(5, None, 8)):
        for dim in (0, 1):
            weight = torch.randn(768, 768)
            probe = ContentProbe([weight])
            (weight if dim == 0 else weight.t())[rows].mul_(2)
            assert not probe.holds()
