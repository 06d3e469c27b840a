"""The weights that run are the modules' own, at every call: wrapped layers, replaced and updated parameters, copies."""

import copy
import types

import pytest
import tokprune_kernels as tk
import torch
from torch import nn

from tests.ops.samples import COMPILED_ONLY

from ..oracle import Pruning
from .helpers import oracle64, pruned_copy, random_batch, random_bert, run, text_error

TOLERANCE = 1e-5
PRUNING = Pruning("topk", (1.0, 0.6, 0.5), position="before_layer")


class Adapter(nn.Module):
    """What LoRA does: the wrapped layer plus a low-rank term. It has no `weight` of its own."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(base.in_features, 2) * 0.3)
        self.up = nn.Parameter(torch.randn(2, base.out_features) * 0.3)

    def forward(self, x):
        return self.base(x) + x @ self.down @ self.up


class TransparentAdapter(Adapter):
    """The same, showing the wrapped layer's attributes, as PEFT's layers do."""

    weight = property(lambda self: self.base.weight)
    bias = property(lambda self: self.base.bias)
    in_features = property(lambda self: self.base.in_features)
    out_features = property(lambda self: self.base.out_features)


class ScaledLinear(nn.Linear):
    """A subclass of nn.Linear whose forward is not nn.Linear's."""

    def forward(self, x):
        return 1.5 * super().forward(x)


def subclassed(base):
    layer = ScaledLinear(base.in_features, base.out_features)
    layer.load_state_dict(base.state_dict())
    return layer


def hooked(base):
    base.register_forward_hook(lambda module, inputs, output: 1.5 * output)
    return base


def pre_hooked(base):
    base.register_forward_pre_hook(lambda module, inputs: (0.5 * inputs[0],))
    return base


def patched(base):
    """As accelerate's hooks do it: another forward on the very module."""
    base.forward = types.MethodType(lambda self, x: 1.5 * nn.Linear.forward(self, x), base)
    return base


def without_bias(base):
    layer = nn.Linear(base.in_features, base.out_features, bias=False)
    layer.weight = base.weight
    return layer


UNCHANGED = ("weight_norm", "without_bias-attention.self.key")  # a bias of the keys shifts every score of a row alike
WRAPPERS = (
    Adapter,
    TransparentAdapter,
    subclassed,
    hooked,
    pre_hooked,
    patched,
    without_bias,
    nn.utils.parametrizations.weight_norm,
)
PLACES = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.__name__)
def test_wrapped_layers_are_not_bypassed(wrapper, place, when):
    """Wrapped before prune_model, or after the first call of the pruned model."""
    plain, pruned = random_bert(), None
    ids, mask = random_batch()
    untouched = oracle64(plain, ids, mask, PRUNING)
    if when == "after":
        pruned = pruned_copy(tk, plain, PRUNING)
        run(pruned, ids, mask)
    for model in filter(None, (plain, pruned)):
        torch.manual_seed(1)
        layer = model.encoder.layer[1]
        layer.set_submodule(place, wrapper(layer.get_submodule(place)).eval())
    pruned = pruned or pruned_copy(tk, plain, PRUNING)
    expected = oracle64(plain, ids, mask, PRUNING)
    if not f"{wrapper.__name__}-{place}".startswith(UNCHANGED):
        assert text_error(expected.last_hidden_state, untouched.last_hidden_state) > 1e-3, "the wrapper must matter"
    out = run(pruned, ids, mask)
    assert torch.equal(out.pruning.kept_mask, expected.kept_mask)
    assert text_error(out.last_hidden_state, expected.last_hidden_state) <= TOLERANCE


class ScaledNorm(nn.LayerNorm):
    """A subclass of nn.LayerNorm whose forward is not nn.LayerNorm's."""

    def forward(self, x):
        return 1.5 * super().forward(x)


@pytest.mark.parametrize("place", ["attention.output.LayerNorm", "output.LayerNorm"])
def test_replaced_layer_norm_is_not_bypassed(place):
    plain = random_bert()
    layer = plain.encoder.layer[1]
    norm = ScaledNorm(64, eps=1e-3)
    norm.load_state_dict(layer.get_submodule(place).state_dict())
    layer.set_submodule(place, norm)
    check(pruned_copy(tk, plain, PRUNING), plain)


def test_replaced_activation_is_not_bypassed():
    plain = random_bert()
    plain.encoder.layer[1].intermediate.intermediate_act_fn = nn.Hardswish()
    check(pruned_copy(tk, plain, PRUNING), plain)


def check(pruned, plain):
    """The pruned model agrees with the oracle on `plain`'s weights."""
    ids, mask = random_batch()
    out, expected = run(pruned, ids, mask), oracle64(plain, ids, mask, PRUNING)
    assert torch.equal(out.pruning.kept_mask, expected.kept_mask)
    assert text_error(out.last_hidden_state, expected.last_hidden_state) <= TOLERANCE


def load_other(model):
    model.load_state_dict(random_bert(seed=1).state_dict())


def update_in_place(model):
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.mul_(1.25)


def replace_parameters(model):
    for module in model.encoder.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight.detach() * 1.25)
            module.bias = nn.Parameter(module.bias.detach() - 0.1)


def copy_at(address, values):
    """A copy of `values` in freshly allocated memory, at `address` if the allocator has that to give."""
    tried = [torch.empty_like(values)]
    while tried[-1].data_ptr() != address and len(tried) < 50:
        tried.append(torch.empty_like(values))
    return tried[-1].copy_(values)


def replace_at_the_same_address(model):
    """Weights one by one, each freed first so that the new one may lie where it lay, until one does."""
    for module in linear_layers(model):
        values, address = module.weight.detach() * 1.25, module.weight.data_ptr()
        del module.weight
        module.weight = nn.Parameter(copy_at(address, values))
        if module.weight.data_ptr() == address:
            return
        run(model, *random_batch())


def point_to_data_at_the_same_address(model):
    """The same with the parameter objects staying, whose version counters do not count this."""
    for module in linear_layers(model):
        values, address = module.weight.data * 1.25, module.weight.data_ptr()
        module.weight.data = torch.empty(0)
        module.weight.data = copy_at(address, values)
        if module.weight.data_ptr() == address:
            return
        run(model, *random_batch())


def linear_layers(model):
    return [module for module in model.encoder.modules() if isinstance(module, nn.Linear)]


def point_to_other_data(model):
    for parameter in model.encoder.parameters():
        parameter.data = parameter.data * 1.25


def replace_a_layer(model):
    model.encoder.layer[1] = copy.deepcopy(random_bert(seed=2).encoder.layer[0])


def step_an_optimiser(model):
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def change_eps(model):
    model.encoder.layer[1].output.LayerNorm.eps = 0.5


def write_to_biases_and_norms(model):
    """To what is read where it is, not copied."""
    with torch.no_grad():
        for name, parameter in model.encoder.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:
                parameter.add_(0.25)


def round_to_bfloat16(model):
    run(model.to(torch.bfloat16), *random_batch())
    model.to(torch.float32)


def train_and_back(model):
    model.train()
    update_in_place(model)
    model.eval()


CHANGES = (
    load_other,
    update_in_place,
    replace_parameters,
    replace_at_the_same_address,
    point_to_other_data,
    point_to_data_at_the_same_address,
    replace_a_layer,
    step_an_optimiser,
    write_to_biases_and_norms,
    round_to_bfloat16,
    train_and_back,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_changed_weights_are_seen(change):
    plain = random_bert()
    pruned = pruned_copy(tk, plain, PRUNING)
    before = run(pruned, *random_batch())
    change(pruned)
    reference = random_bert(seed=9)
    reference.load_state_dict(pruned.state_dict())
    check(pruned, reference)
    assert text_error(run(pruned, *random_batch()).last_hidden_state, before.last_hidden_state) > 1e-4, "nothing changed"


@pytest.mark.parametrize("called_before", [False, True])
def test_changed_eps_is_seen(called_before):
    plain = random_bert()
    pruned = pruned_copy(tk, plain, PRUNING)
    before = run(pruned, *random_batch())
    pruned = pruned if called_before else pruned_copy(tk, plain, PRUNING)
    for model in (plain, pruned):
        change_eps(model)
    check(pruned, plain)
    assert text_error(run(pruned, *random_batch()).last_hidden_state, before.last_hidden_state) > 1e-4, "nothing changed"


def test_norms_that_get_another_dtype():
    """LayerNorms of a bfloat16 model, made float32 after its first call, are called as modules from then on."""
    model = pruned_copy(tk, random_bert(), PRUNING).bfloat16()
    before = run(model, *random_batch()).last_hidden_state
    for module in model.encoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.float()
    after = run(model, *random_batch()).last_hidden_state
    assert after.dtype == torch.bfloat16
    assert text_error(after.float(), before.float()) < 0.1


@pytest.mark.parametrize("place", PLACES)
def test_weight_that_is_no_parameter(place):
    """As functional code leaves it: a plain tensor, which can be exchanged without a trace."""
    plain = random_bert()
    pruned = pruned_copy(tk, plain, PRUNING)
    for factor in (1.0, 1.25):
        for model in (plain, pruned):
            module = model.encoder.layer[1].get_submodule(place)
            weight = module.weight.detach() * factor
            del module.weight
            module.weight = weight
        expected = copy.deepcopy(plain)
        module = expected.encoder.layer[1].get_submodule(place)
        weight = module.__dict__.pop("weight")
        module.weight = nn.Parameter(weight)
        check(pruned, expected)


@COMPILED_ONLY
def test_only_what_was_copied_is_packed_again():
    model = pruned_copy(tk, random_bert(), PRUNING)
    run(model, *random_batch())
    snapshot = model.encoder.packed_layers._snapshot
    layer = model.encoder.layer[0]
    in_place = {layer.output.LayerNorm.weight, layer.output.LayerNorm.bias, layer.output.dense.bias}
    copied = {layer.output.dense.weight, layer.attention.self.value.bias}
    for parameter in (*in_place, *copied):
        with torch.no_grad():
            parameter.mul_(1.25)
        run(model, *random_batch())
        packed_again = model.encoder.packed_layers._snapshot is not snapshot
        assert packed_again == (parameter in copied)
        snapshot = model.encoder.packed_layers._snapshot


def test_model_made_in_inference_mode():
    """Parameters that are inference tensors have no version counter."""
    with torch.inference_mode():
        plain = random_bert()
        check(pruned_copy(tk, plain, PRUNING), plain)


def test_a_deepcopy_is_independent():
    plain = random_bert()
    pruned = pruned_copy(tk, plain, PRUNING)
    run(pruned, *random_batch())
    other = copy.deepcopy(pruned)
    update_in_place(pruned)
    check(other, plain)
    other.set_pruning(tk.PruningConfig.dense())
    update_in_place(plain)
    check(pruned, plain)
