"""torch.compile of pruned models: one graph without breaks for any batch, which always runs the model as it is now."""

import copy

import pytest
import tokprune_kernels as tk
import torch
import transformers
from torch import nn
from tokprune_kernels.layers.kernels import COMPILED

from .helpers import random_batch, random_bert, repad, text_error
from .test_model_types import of_type

BATCHES = (
    random_batch((16, 1, 7, 40, 33), 48),
    random_batch((3, 0, 20), 25, seed=1),
    repad(*random_batch((3, 2, 20), seed=2), side="left", width=30),
    random_batch((12,), seed=3),
)
LTP = tk.PruningConfig.ltp([0.0, 0.02, 0.03], protected_token_ids=(5, 9))
NEEDS_KERNELS = pytest.mark.skipif(not COMPILED, reason="freezing needs the compiled kernels")


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    with torch._dynamo.config.patch(recompile_limit=16):
        yield


def pruned(head="BertModel", pruning=LTP, **config):
    return tk.prune_model(random_bert(getattr(transformers, head), **config), pruning)


def compiled(model, **options):
    """Traced as for inductor, whose own code rounds embeddings and LayerNorms a little differently; any graph break is an error."""
    return torch.compile(model, **{"fullgraph": True, "backend": "aot_eager", **options})


def assert_same(program, model, batches=BATCHES, **given):
    for ids, mask in batches:
        with torch.no_grad():
            actual, expected = (one(ids, attention_mask=mask, **given) for one in (program, model))
        for a, e in zip(actual.to_tuple(), expected.to_tuple(), strict=True):
            assert torch.equal(a, e)


@pytest.mark.parametrize("dynamic", (None, True, False))
@pytest.mark.parametrize("head", ("BertModel", "BertForSequenceClassification", "BertForTokenClassification"))
def test_one_graph_for_any_batch(head, dynamic):
    model = pruned(head)
    assert_same(compiled(model, dynamic=dynamic), model)


def test_inference_mode():
    model = pruned()
    program = compiled(model)
    with torch.inference_mode():
        assert torch.equal(program(*BATCHES[0])[0], model(*BATCHES[0])[0])


@pytest.mark.parametrize("kind", ("distilbert", "roberta"))
def test_other_types(kind):
    model = tk.prune_model(of_type(kind, "ForSequenceClassification"), LTP)
    assert_same(compiled(model), model)


@pytest.mark.parametrize("readout", ("first", "survivor_mean"))
def test_readouts(readout):
    model = pruned(pruning=tk.PruningConfig.ltp([0.0, 0.02, 0.03], readout=readout))
    assert_same(compiled(model), model)


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float64))
def test_dtypes(dtype):
    model = pruned(pruning=None).to(dtype)
    assert_same(compiled(model), model)


def test_by_inductor():
    model = pruned("BertForSequenceClassification")
    program = torch.compile(model, fullgraph=True, dynamic=True)
    for ids, mask in BATCHES:
        with torch.no_grad():
            assert text_error(program(ids, mask).logits, model(ids, mask).logits) < 1e-5


class Adapted(nn.Module):
    """A linear layer with LoRA beside it."""

    def __init__(self, base):
        super().__init__()
        self.base, self.down, self.up = base, nn.Linear(base.in_features, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))

    def merged(self):
        with torch.no_grad():
            self.base.weight += self.up.weight @ self.down.weight
        return self.base


def test_it_runs_the_weights_and_the_pruning_of_now():
    model = pruned()
    program, first = compiled(model), BATCHES[:1]
    with torch.no_grad():
        start = program(*first[0]).last_hidden_state
    assert_same(program, model, first)
    model.load_state_dict(random_bert(seed=5).state_dict())
    assert_same(program, model, first)
    with torch.no_grad():
        assert not torch.equal(program(*first[0]).last_hidden_state, start)
    attention = model.encoder.layer[1].attention.self
    attention.key = Adapted(attention.key)
    assert_same(program, model, first)
    attention.key = attention.key.merged()
    assert_same(program, model, first)
    for pruning in (tk.PruningConfig.top([1.0, 0.5, 0.5]), tk.PruningConfig.dense(), LTP):
        model.set_pruning(pruning)
        assert_same(program, model, first)


@NEEDS_KERNELS
def test_frozen_before_and_after():
    model = pruned("BertForSequenceClassification").freeze_for_inference()
    program = compiled(model)
    assert_same(program, model, BATCHES[:2])
    model.unfreeze()
    assert_same(program, model, BATCHES[:2])
    model.freeze_for_inference()
    assert_same(program, model, BATCHES[:2])


def test_copies_run_their_own_weights():
    model = pruned()
    program = compiled(model)
    assert_same(program, model, BATCHES[:1])
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    assert_same(compiled(other), other, BATCHES[:1])
    assert_same(program, model, BATCHES[:1])


def test_what_depends_on_data_still_works_with_graph_breaks():
    model = pruned()
    program = compiled(model, fullgraph=False)
    ids, mask = BATCHES[0]
    with torch.no_grad():
        actual, expected = (one(ids, mask, output_pruning=True, output_hidden_states=True) for one in (program, model))
    assert torch.equal(actual.pruning.kept_mask, expected.pruning.kept_mask)
    for a, e in zip(actual.hidden_states, expected.hidden_states, strict=True):
        assert text_error(a, e) < 1e-5


@pytest.mark.skipif(not COMPILED, reason="torch 2.13 fails inside dynamo's guards on the reference ops' sizes")
def test_training_still_works():
    model = pruned(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    other = copy.deepcopy(model)
    for one in (compiled(model, fullgraph=False), other):
        one(*BATCHES[0]).last_hidden_state.square().sum().backward()
    for a, e in zip(model.parameters(), other.parameters(), strict=True):
        assert (a.grad is None) == (e.grad is None)
        if e.grad is not None:
            torch.testing.assert_close(a.grad, e.grad, rtol=1e-4, atol=1e-3)


def test_config_set_by_hand_is_not_overlooked():
    model = pruned()
    model.config.pruning = tk.PruningConfig.top([1.0, 0.5, 0.5]).to_dict()
    with torch.no_grad(), pytest.raises(Exception, match="set_pruning"):
        compiled(model)(*BATCHES[0])
