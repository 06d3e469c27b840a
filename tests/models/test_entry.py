"""Every caller passes the same entry: `model.forward`, functional_call, wrappers, dispatchers and copies."""

import copy
import inspect
import pickle

import pytest
import tokprune_kernels as tk
import torch
import transformers
from torch.func import functional_call
from torch.nn.parallel import DataParallel

from ..oracle import Pruning
from .helpers import pruned_copy, random_batch, random_bert, run, text_error, to_config

PRUNING = Pruning("topk", (1.0, 0.6, 0.5), position="before_layer")
HEADS = [
    "BertModel", "BertForSequenceClassification", "BertForTokenClassification", "BertForQuestionAnswering", "BertForMaskedLM",
    "BertForNextSentencePrediction", "BertForPreTraining",
]  # fmt: skip
IDS, MASK = random_batch((16, 4, 7))


@pytest.fixture(params=HEADS)
def model(request):
    return pruned_copy(tk, random_bert(getattr(transformers, request.param), mask_token_id=5), PRUNING)


def tensors(output):
    return [value for value in output.to_tuple() if isinstance(value, torch.Tensor)]


def assert_equal(one, two):
    assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(two), strict=True))


@torch.no_grad()
def test_forward_is_the_call(model):
    called, forwarded = model(IDS, attention_mask=MASK), model.forward(IDS, attention_mask=MASK)
    assert_equal(called, forwarded)
    reported = model.forward(IDS, attention_mask=MASK, output_pruning=True)
    assert torch.equal(reported.pruning.kept_lengths[0], MASK.sum(1)), "pruning is reported"
    assert (reported.pruning.kept_lengths[-1] < MASK.sum(1)).all()
    assert isinstance(model.forward(IDS, MASK, return_dict=False), tuple)


@torch.no_grad()
def test_forward_of_a_classifier_has_the_exact_last_layer(monkeypatch):
    """A head that reads only [CLS] computes only its row of the last layer, whoever calls it."""
    from tokprune_kernels.layers import whole

    seen = []
    monkeypatch.setattr(whole.OPS, "encoder", lambda *a, op=whole.OPS.encoder: (seen.append(a[14]), op(*a))[1])
    model = pruned_copy(tk, random_bert(transformers.BertForSequenceClassification), PRUNING)
    model.forward(IDS, attention_mask=MASK)
    assert seen == [whole.READOUTS["first_only"]]


def test_signature(model):
    own = inspect.signature(type(model).forward)
    shown = inspect.signature(model.forward)
    assert [name for name in own.parameters if name != "self"] == [n for n in shown.parameters if n not in ("output_pruning", "soft_pruning")]
    assert {"output_pruning", "soft_pruning"} <= set(shown.parameters)
    assert shown.return_annotation == own.return_annotation


@torch.no_grad()
@pytest.mark.parametrize("through", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_call_themselves(model, through):
    other, before = through(model), model(IDS, attention_mask=MASK)
    for parameter in model.parameters():
        parameter.zero_()
    assert_equal(other.forward(IDS, attention_mask=MASK), before)
    assert_equal(other(IDS, attention_mask=MASK), before)


@torch.no_grad()
def test_functional_call(model):
    expected = model(IDS, attention_mask=MASK)
    weights = {name: value.clone() for name, value in model.named_parameters()}
    zeros = {name: torch.zeros_like(value) for name, value in weights.items()}
    other = functional_call(model, zeros, (IDS,), {"attention_mask": MASK})
    assert not torch.equal(tensors(other)[0], tensors(expected)[0])
    assert_equal(functional_call(model, weights, (IDS,), {"attention_mask": MASK}), expected)
    assert_equal(model(IDS, attention_mask=MASK), expected)


@torch.no_grad()
def test_data_parallel(model):
    """Its copies share the instance's attributes: each must call itself, with caches of its own."""
    expected = model(IDS, attention_mask=MASK)
    assert_equal(DataParallel(model)(IDS, attention_mask=MASK), expected)
    replica = model._replicate_for_data_parallel()
    assert replica.__dict__["forward"].model is replica
    assert model.__dict__["forward"].model is model
    encoder = next(m for m in model.modules() if type(m).__name__ == "PrunedEncoder")
    assert encoder._replicate_for_data_parallel().packed_layers is not encoder.packed_layers


@torch.no_grad()
@pytest.mark.parametrize("first", ["accelerate", "prune_model"])
def test_accelerates_hooks(first):
    """cpu_offload keeps weights away until a module runs; its hook stands at every forward."""
    accelerate = pytest.importorskip("accelerate")
    plain = random_bert(transformers.BertForSequenceClassification)
    expected = run(pruned_copy(tk, plain, PRUNING), IDS, MASK).logits
    if first == "prune_model":
        model = tk.prune_model(plain, to_config(tk, PRUNING))
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        accelerate.cpu_offload(plain, execution_device=torch.device("cpu"))
        model = tk.prune_model(plain, to_config(tk, PRUNING))
    assert next(model.bert.encoder.layer.parameters()).device.type == "meta"
    out = model(IDS, attention_mask=MASK, output_pruning=True)
    assert out.pruning is not None and text_error(out.logits, expected) <= 1e-5
    assert_equal(model.forward(IDS, attention_mask=MASK), model(IDS, attention_mask=MASK))
    accelerate.hooks.remove_hook_from_module(model, recurse=True)
    assert type(model.__dict__["forward"]).__name__ == "Entry", "the entry is back when the hook is gone"


@torch.no_grad()
def test_a_forward_of_the_instances_own_is_called():
    """What somebody put at `forward` before stays inside."""
    plain = random_bert()
    seen = []

    def traced(*args, **kwargs):
        seen.append(kwargs["input_ids"].shape)
        return type(plain).forward(plain, *args, **kwargs)

    plain.forward = traced
    model = tk.prune_model(plain, to_config(tk, PRUNING))
    model(IDS, attention_mask=MASK)
    assert seen == [(1, int(MASK.sum()))], "the packed tokens pass it"


@torch.no_grad()
def test_hooks_see_the_callers_input_and_output():
    model = pruned_copy(tk, random_bert(), PRUNING)
    seen = []
    model.register_forward_hook(lambda m, args, out: seen.append((args[0].shape, out.last_hidden_state.shape)))
    model(IDS, attention_mask=MASK)
    assert seen == [(IDS.shape, (*IDS.shape, 64))]


def test_a_configuration_set_by_hand_is_followed():
    model = pruned_copy(tk, random_bert(), PRUNING)
    model.config.pruning = tk.PruningConfig.dense().to_dict()
    assert (run(model, IDS, MASK).pruning.kept_lengths[-1] == MASK.sum(1)).all()
    model.config.pruning = to_config(tk, PRUNING)
    assert (run(model, IDS, MASK).pruning.kept_lengths[-1] < MASK.sum(1)).all()
    model.config.pruning = {"criterion": "topk", "keep_ratios": [0.5]}
    with pytest.raises(ValueError, match="keep_ratios"):
        run(model, IDS, MASK)
