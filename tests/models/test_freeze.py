"""Freezing for inference: one copy of the weights, the same bits, and clear errors for what needs the originals."""

import copy
import gc
import pickle

import pytest
import tokprune_kernels as tk
import torch
import transformers
from torch import nn
from torch.nn.utils import parametrizations

from tests.ops.samples import COMPILED_ONLY

from .helpers import random_batch, random_bert, run

pytestmark = COMPILED_ONLY

PRUNING = tk.PruningConfig.top([1.0, 0.6, 0.5])
SHAPES = {"panels": (128, 192), "odd": (48, 100)}  # whole panels of 64 columns, and not
DTYPES = (torch.float32, torch.bfloat16)


def pruned(cls=transformers.BertModel, dtype=torch.float32, hidden=64, wide=256, **config):
    return tk.prune_model(random_bert(cls, hidden_size=hidden, intermediate_size=wide, **config).to(dtype), PRUNING)


def outputs(model, **options):
    with torch.inference_mode():
        return model(*random_batch(), **options)


def tensors(value):
    """All tensors in an output, whatever it is nested in."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    return [tensor for part in value for tensor in tensors(part)]


def assert_same(one, two):
    assert len(tensors(one)) == len(tensors(two)) > 0
    assert all(map(torch.equal, tensors(one), tensors(two)))


def weights(model):
    """What a state dict holds, in memory of its own."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_weights(model, expected):
    assert list(model.state_dict()) == list(expected)
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", DTYPES, ids=("fp32", "bf16"))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("head", ["BertModel", "BertForSequenceClassification", "BertForTokenClassification"])
def test_same_bits_frozen_and_after(head, shape, dtype):
    model = pruned(getattr(transformers, head), dtype, *SHAPES[shape])
    ways = ({}, {"output_pruning": True}, {"output_hidden_states": True})
    before, values = [outputs(model, **way) for way in ways], weights(model)
    assert model.freeze_for_inference() is model
    for way, expected in zip(ways, before):
        assert_same(outputs(model, **way), expected)
    assert model.unfreeze() is model
    assert_weights(model, values)
    assert_same(outputs(model), before[0])


@pytest.mark.parametrize("frozen_by", ["head", "base"])
@pytest.mark.parametrize("unfrozen_by", ["head", "base"])
def test_head_and_base_freeze_the_same_encoder(frozen_by, unfrozen_by):
    head = pruned(transformers.BertForSequenceClassification)
    models = {"head": head, "base": head.bert}
    models[frozen_by].freeze_for_inference()
    for model in models.values():
        with pytest.raises(RuntimeError, match="unfreeze"):
            model.train()
    models[unfrozen_by].unfreeze()
    assert head.train().training and head.bert.encoder.layer[0].training


def test_pruned_classes_freeze_too(tmp_path):
    random_bert(transformers.BertForSequenceClassification).save_pretrained(tmp_path)
    model = tk.PrunedBertForSequenceClassification.from_pretrained(tmp_path, pruning=PRUNING)
    expected = outputs(model)
    assert_same(outputs(model.freeze_for_inference()), expected)


def test_set_pruning_while_frozen():
    model, other = pruned(), tk.PruningConfig.ltp([0.0, 0.05, 0.05])
    frozen = copy.deepcopy(model).freeze_for_inference()
    for one in (model, frozen):
        one.set_pruning(other)
    assert_same(outputs(frozen, output_pruning=True), outputs(model, output_pruning=True))
    with pytest.raises(ValueError, match="thresholds"):
        frozen.set_pruning(tk.PruningConfig.ltp([0.0]))


def live_bytes():
    """Bytes of all memory that some ordinary tensor of this process holds."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if type(one) in (torch.Tensor, nn.Parameter)]
    # Those of other layouts, such as oneDNN's that a compiled model of another test may have left, have no storage to ask.
    held = [one.untyped_storage() for one in tensors if one.layout is torch.strided]
    return sum({storage.data_ptr(): storage.nbytes() for storage in held}.values())


@pytest.mark.parametrize("called_before", [False, True])
def test_one_copy_of_the_weights(called_before):
    model = pruned(hidden=128, wide=512)
    alone = live_bytes()
    linear = sum(m.weight.nbytes for m in model.encoder.modules() if isinstance(m, nn.Linear))
    if called_before:
        outputs(model)
        assert live_bytes() - alone >= linear, "packed and original weights"
    model.freeze_for_inference()
    outputs(model)
    assert live_bytes() - alone < 0.02 * linear
    model.unfreeze()
    assert live_bytes() - alone < 0.02 * linear


def test_no_check_while_frozen(monkeypatch):
    from tokprune_kernels.layers.watch import Watch

    checks, holds = [], Watch.holds
    monkeypatch.setattr(Watch, "holds", lambda watch: checks.append(None) or holds(watch))
    model = pruned()
    for _ in range(2):
        outputs(model)
    assert len(checks) == 1
    model.freeze_for_inference()
    outputs(model)
    assert len(checks) == 1


def test_parameters_come_back_as_they_were():
    model = pruned()
    for parameter in model.encoder.layer[1].parameters():
        parameter.requires_grad_(False)
    parameters, modules = dict(model.named_parameters()), dict(model.named_modules())
    wanted, values = {name: p.requires_grad for name, p in parameters.items()}, weights(model)
    model.freeze_for_inference().unfreeze()
    assert dict(model.named_modules()) == modules
    assert all(one is parameters[name] for name, one in model.named_parameters())  # an optimiser still holds them
    assert {name: p.requires_grad for name, p in model.named_parameters()} == wanted
    assert all(isinstance(p, nn.Parameter) and p.is_leaf for p in model.parameters())
    assert_weights(model, values)
    out = model(*random_batch())
    out.last_hidden_state.sum().backward()
    assert model.encoder.layer[0].attention.self.query.weight.grad.shape == (64, 64)


def test_frozen_and_unfrozen_in_inference_mode():
    model = pruned()
    expected = outputs(model)
    with torch.inference_mode():
        model.freeze_for_inference()
    with torch.no_grad():
        assert_same(model(*random_batch()), expected)
    with torch.inference_mode():
        model.unfreeze()
    model(*random_batch()).last_hidden_state.sum().backward()


def test_twice_is_once():
    model = pruned()
    expected, values = outputs(model), weights(model)
    model.freeze_for_inference().freeze_for_inference()
    assert_same(outputs(model), expected)
    model.unfreeze().unfreeze()
    assert_weights(model, values)


REFUSED = {
    "state_dict": lambda model: model.state_dict(),
    "save_pretrained": lambda model: model.save_pretrained("never_written"),
    "load_state_dict": lambda model: model.load_state_dict(random_bert(seed=1).state_dict()),
    "train": lambda model: model.train(),
    "to dtype": lambda model: model.to(torch.bfloat16),
    "to device": lambda model: model.to("meta"),
    "half": lambda model: model.half(),
    "double": lambda model: model.double(),
    "gradients": lambda model: model(*random_batch()),
    "gradients of the head alone": lambda model: model.requires_grad_(False) and model(*random_batch()),
    "layers": lambda model: list(model.encoder.layer),
    "encoder train": lambda model: model.encoder.train(),
    "encoder half": lambda model: model.encoder.half(),
    "encoder state_dict": lambda model: model.encoder.state_dict(),
    "encoder load_state_dict": lambda model: model.encoder.load_state_dict({}),
    "wrapped": lambda model: nn.Sequential(model).half(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_needs_the_originals_is_refused(what, tmp_path, monkeypatch):
    """With nothing changed: not the embeddings either, which come before the encoder."""
    monkeypatch.chdir(tmp_path)
    model = pruned()
    expected, values = outputs(model), weights(model)
    model.freeze_for_inference()
    with pytest.raises(RuntimeError, match=r"frozen.*unfreeze\(\)"):
        REFUSED[what](model)
    assert not model.training and not model.embeddings.training
    model.encoder.eval()
    assert_same(outputs(model), expected)
    assert_weights(model.unfreeze(), values)


def test_what_changes_nothing_is_allowed():
    model = pruned()
    expected = outputs(model)
    model.freeze_for_inference()
    assert model.eval().float().to("cpu").to(torch.float32) is model
    assert_same(outputs(model), expected)


def test_autocast_is_refused():
    model = pruned().freeze_for_inference()
    with torch.autocast("cpu"), pytest.raises(RuntimeError, match=r"autocast.*unfreeze\(\)"):
        outputs(model)


def test_activations_of_another_dtype_are_refused():
    model = pruned().freeze_for_inference()
    model.embeddings.double()
    with pytest.raises(RuntimeError, match=r"float64.*float32.*unfreeze\(\)"):
        outputs(model)


def test_compiled_around_the_frozen_encoder():
    model = pruned()
    expected = outputs(model)
    model.freeze_for_inference()
    assert_same(outputs(torch.compile(model, backend="eager")), expected)


class Adapter(nn.Module):
    """What LoRA does: it wraps the linear layer."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        return self.base(x)


def hooked(base):
    base.register_forward_hook(lambda module, inputs, output: None)
    return base


ADVICE = {
    Adapter: "Merge what it adds",
    hooked: "Take its hooks off",
    parametrizations.weight_norm: "Merge what it adds",
    nn.Linear.double: "Convert the whole model to one dtype",
}


@pytest.mark.parametrize("wrap", ADVICE)
@pytest.mark.parametrize("place", ["attention.self.key", "output.dense"])
def test_refused_unless_wholly_packed(wrap, place):
    """With advice about what is there."""
    model = pruned()
    layer = model.encoder.layer[1]
    layer.set_submodule(place, wrap(layer.get_submodule(place)).eval())
    values = weights(model)
    with pytest.raises(ValueError, match=rf"(?s)layer 1.*{place}.*{ADVICE[wrap]}"):
        model.freeze_for_inference()
    assert_weights(model, values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_dtypes_that_are_not_packed(dtype):
    model = pruned(dtype=dtype)
    with pytest.raises(ValueError, match=rf"{dtype}.*float\(\)"):
        model.freeze_for_inference()


def test_without_the_compiled_kernels_it_is_refused(monkeypatch):
    monkeypatch.setattr("tokprune_kernels.layers.frozen.COMPILED", False)
    with pytest.raises(ValueError, match="compiled kernels"):
        pruned().freeze_for_inference()


@pytest.mark.parametrize("part", ["", "encoder.layer.2.output.dropout"])
def test_training_mode_is_refused(part):
    model = pruned()
    model.get_submodule(part).train()
    with pytest.raises(ValueError, match=r"eval\(\)"):
        model.freeze_for_inference()
    assert len(list(model.encoder.layer)) == 3


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_are_frozen_and_independent(copied):
    model = pruned(transformers.BertForSequenceClassification)
    expected, values = outputs(model), weights(model)
    other = copied(model.freeze_for_inference())
    with pytest.raises(RuntimeError, match="unfreeze"):
        other.state_dict()
    assert other.bert.encoder.config is other.config
    for one in (other, model):  # the first is unfrozen and destroyed under the second
        assert_same(outputs(one), expected)
        assert one.unfreeze() is one
        assert_weights(one, values)
        assert one.bert.encoder.layer[0].attention.self.config is one.config
        with torch.no_grad():
            for parameter in one.parameters():
                parameter.zero_()


def test_copies_of_an_unfrozen_model_have_their_own_methods():
    model = pruned()
    other = copy.deepcopy(model)
    assert other.freeze_for_inference() is other
    assert other.encoder.is_frozen and not model.encoder.is_frozen
