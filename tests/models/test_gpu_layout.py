"""Layers as a GPU runs them in exact mode: query, key and value in one product, LayerNorm fused; here on the CPU's kernels."""

import copy

import pytest
import torch

import tokprune_kernels as tk
from tokprune_kernels.models.encoder import PrunedEncoder

RULES = {
    "dense": tk.PruningConfig.dense(),
    "ltp": tk.PruningConfig.ltp([0.0, 0.02, 0.03, 0.04, 0.05, 0.06]),
    "top": tk.PruningConfig.top([1.0, 0.9, 0.8, 0.7, 0.6, 0.5]),
}


@pytest.mark.parametrize("rule", RULES)
def test_same_as_the_modules(minilm, rule, monkeypatch):
    """The states and what was pruned are those of the packed layers of the CPU."""
    model = tk.prune_model(copy.deepcopy(minilm), RULES[rule])
    ids = torch.randint(1000, 20000, (4, 30))
    mask = (torch.arange(30) < torch.tensor([30, 1, 17, 0])[:, None]).long()
    used = []

    def gpu_stack(self, x, kernels):
        used.append(self._gpu_stack(x))
        return used[-1]

    with torch.inference_mode():
        expected = model(ids, attention_mask=mask, output_pruning=True)
        monkeypatch.setattr(PrunedEncoder, "_packed_stack", gpu_stack)
        actual = model(ids, attention_mask=mask, output_pruning=True)
    assert len(used) == 1 and used[0].whole is not None
    assert used[0].parts[1].weight.data_ptr() == model.encoder.layer[0].attention.output.dense.weight.data_ptr(), "read where it is"
    torch.testing.assert_close(actual.last_hidden_state, expected.last_hidden_state, rtol=1e-4, atol=1e-4)
    assert torch.equal(actual.pruning.kept_mask, expected.pruning.kept_mask)


def test_weights_that_change_are_followed(minilm):
    model = tk.prune_model(copy.deepcopy(minilm), None)
    x = torch.zeros(3, 384)
    first = model.encoder._gpu_stack(x)
    assert model.encoder._gpu_stack(x) is first
    with torch.no_grad():
        model.encoder.layer[2].attention.self.key.weight.mul_(2)
    assert model.encoder._gpu_stack(x) is not first


def test_mode_by_name(minilm):
    model = tk.prune_model(copy.deepcopy(minilm), None)
    model.set_gpu_mode("graph")
    assert model.encoder.gpu_mode == "graph"
    with pytest.raises(ValueError, match="mode must be one of 'auto', 'exact', 'graph', got 'fast'"):
        model.set_gpu_mode("fast")
