"""Hooks that are never called are said to be so, once."""

import warnings

import pytest
import tokprune_kernels as tk
import torch

from ..oracle import Pruning
from .helpers import pruned_copy, random_batch, random_bert, run

PRUNING = Pruning("topk", (1.0, 0.6, 0.5))
IDS, MASK = random_batch((16, 4, 7))
NEVER = "a hook on layer .* is never called"

UNHEARD = {
    "attention": lambda layer: layer.attention,
    "self-attention": lambda layer: layer.attention.self,
    "intermediate": lambda layer: layer.intermediate,
    "output": lambda layer: layer.output,
}
KINDS = ("register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook")


@pytest.mark.parametrize("gradients", [False, True], ids=["no_grad", "grad"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", UNHEARD)
def test_said_once(place, kind, gradients):
    model = pruned_copy(tk, random_bert(), PRUNING)
    run(model, IDS, MASK, gradients)
    handle = getattr(UNHEARD[place](model.encoder.layer[1]), kind)(lambda *_: None)
    with pytest.warns(UserWarning, match=NEVER.replace(".*", "1.*")):
        run(model, IDS, MASK, gradients)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(model, IDS, MASK, gradients)
        handle.remove()
        run(model, IDS, MASK, gradients)


def test_one_from_before_the_pruning():
    plain = random_bert()
    plain.encoder.layer[0].attention.register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match=NEVER):
        run(tk.prune_model(plain, None), IDS, MASK)


@pytest.mark.parametrize("gradients", [False, True], ids=["no_grad", "grad"])
def test_hooks_on_what_runs_are_called(gradients):
    model = pruned_copy(tk, random_bert(), PRUNING)
    run(model, IDS, MASK, gradients)
    seen = []
    layer = model.encoder.layer[1]
    for module in (layer.attention.self.query, layer.attention.output.LayerNorm, layer.output.dense, model.embeddings, model.pooler):
        module.register_forward_hook(lambda module, args, output: seen.append(module))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(model, IDS, MASK, gradients)
    assert len(seen) == 5


@pytest.mark.parametrize("soft", [False, True], ids=["removed", "soft"])
@pytest.mark.parametrize("gradients", [False, True], ids=["no_grad", "grad"])
def test_hooks_on_whole_layers_are_called(gradients, soft):
    """Around the layer, with the packed states of the tokens alive, which they may change."""
    model = pruned_copy(tk, random_bert(), PRUNING)
    options = {"soft_pruning": KeepAll()} if soft else {"output_pruning": True}
    with torch.set_grad_enabled(gradients):
        usual = model(IDS, attention_mask=MASK, **options)
        layer, seen = model.encoder.layer[1], []
        layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
        handle = layer.register_forward_hook(lambda module, args, output: seen.append(output.shape))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            out = model(IDS, attention_mask=MASK, **options)
        assert torch.allclose(out.last_hidden_state, usual.last_hidden_state, atol=1e-6)
        before, after = (int(MASK.sum()),) * 2 if soft else usual.pruning.kept_lengths[1:3].sum(1).tolist()
        assert seen == [(1, before, 64), (1, after, 64)]
        handle.remove()
        layer.register_forward_hook(lambda module, args, output: output * 0)
        changed = model(IDS, attention_mask=MASK, **options)
    assert not torch.allclose(changed.last_hidden_state, usual.last_hidden_state, atol=1e-3)


class KeepAll:
    masks, score_denominator = "attention", "kept"

    def __call__(self, layer, importance, weights, cu_seqlens):
        return None


def test_backward_hooks_on_whole_layers():
    model = pruned_copy(tk, random_bert(), PRUNING)
    seen = []
    model.encoder.layer[1].register_full_backward_hook(lambda module, grad_in, grad_out: seen.append(grad_out[0].shape))
    out = run(model, IDS, MASK, gradients=True)
    out.last_hidden_state.sum().backward()
    assert seen == [(1, int(out.pruning.kept_lengths[2].sum()), 64)]


def test_a_hooked_layer_alone_is_still_a_layer():
    plain = random_bert()
    x = torch.randn(2, 5, 64)
    with torch.no_grad():
        expected = plain.encoder.layer[0](x)
        model = tk.prune_model(plain, None)
        model.encoder.layer[0].register_forward_hook(lambda *_: None)
        model(IDS, attention_mask=MASK)
        assert torch.equal(model.encoder.layer[0](x), expected)


def test_hooks_are_called_once_under_gradient_checkpointing():
    """What is computed again is a part of the layer, whose decisions are not made again."""
    model = pruned_copy(tk, random_bert(), PRUNING).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    seen = []
    model.encoder.layer[0].register_forward_pre_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    with pytest.warns(UserWarning, match="attention dropout"):
        model(IDS, attention_mask=MASK).last_hidden_state.sum().backward()
    assert seen == [True]


def test_what_transformers_leaves_for_itself_is_no_reason():
    """Its own collectors stay in the layers of a model that was once asked for its states."""
    plain = random_bert()
    with torch.no_grad():
        plain(IDS, attention_mask=MASK, output_hidden_states=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(tk.prune_model(plain, None), IDS, MASK)


def test_quantize_dynamic_of_a_frozen_model_is_refused():
    """There are no linear layers in it that could be quantised: it would silently do nothing."""
    model = pruned_copy(tk, random_bert(), PRUNING)
    quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)
    assert "DynamicQuantizedLinear" in str(quantized.encoder.layer), "before that it works"
    assert run(quantized, IDS, MASK).last_hidden_state.isfinite().all()
    with pytest.raises(RuntimeError, match="no quantisation by modules while the model is frozen.*unfreeze"):
        torch.ao.quantization.quantize_dynamic(model.freeze_for_inference(), {torch.nn.Linear}, torch.qint8)
