"""Soft pruning: all tokens stay and are weighed. In the limit of weights 0 and 1 it is the model that really removes tokens."""

import copy
import math

import pytest
import torch
from torch import nn
from transformers import BertForSequenceClassification, BertModel

import tokprune_kernels as tk

from .helpers import make_pruning, pruned_copy, random_batch, random_bert, run, text_error

LENGTHS = (21, 0, 1, 33, 21, 2, 48)
DENOMINATORS = ("kept", "sqrt_kept", "initial", 64)


class Scripted:
    """Gives weights that were written down before, and notes the importance it is shown: weights[l] (T,), importance[l] (T,)."""

    def __init__(self, weights, masks="attention", score_denominator="kept"):
        self.weights, self.masks, self.score_denominator = weights, masks, score_denominator
        self.importance, self.shown = [], []

    def __call__(self, layer, importance, weights, cu_seqlens):
        assert layer == len(self.importance), "layers come in order"
        self.importance.append(importance.detach())
        self.shown.append(weights.detach())
        return self.weights[layer]


class Sigmoids(nn.Module):
    """Thresholds with sigmoid masks, the first token spared; `share` is the sum over the layers of the mean weight of a batch."""

    def __init__(self, thresholds, temperature, masks, score_denominator):
        super().__init__()
        self.thresholds = nn.Parameter(torch.tensor(thresholds))
        self.temperature, self.masks, self.score_denominator = temperature, masks, score_denominator
        self.share = 0.0

    def __call__(self, layer, importance, weights, cu_seqlens):
        first = torch.zeros(len(importance), dtype=torch.bool)
        first[cu_seqlens[:-1][cu_seqlens.diff() > 0].long()] = True
        passed = torch.sigmoid((importance - self.thresholds[layer]) / self.temperature).masked_fill(first, 1.0)
        passed = weights * passed if self.masks == "attention" else passed
        self.share = self.share + passed.mean()
        return passed


def classifier(**config):
    return random_bert(BertForSequenceClassification, num_labels=3, **config)


def packed(padded, mask):
    """(T, ...) of (B, L, ...)."""
    return padded[mask != 0]


def assert_same_gradients(ours, theirs, tolerance):
    """Of each parameter by its own largest gradient; by the largest of all where it is 0 but for rounding (biases of keys)."""
    ours, theirs = list(ours), list(theirs)
    largest = max(float(parameter.grad.abs().max()) for _, parameter in theirs)
    for (name, parameter), (_, reference) in zip(ours, theirs, strict=True):
        allowed = tolerance * float(reference.grad.abs().max()) + 1e-6 * largest
        assert (parameter.grad - reference.grad).abs().max() <= allowed, name


@pytest.mark.parametrize("gradients", [False, True], ids=["no_grad", "grad"])
@pytest.mark.parametrize("masks", ["attention", "hidden"])
def test_weights_of_one_change_nothing(masks, gradients):
    model, (ids, mask) = tk.prune_model(classifier(), None), random_batch(LENGTHS)
    script = Scripted([torch.ones(int(mask.sum()))] * 3, masks)
    with torch.set_grad_enabled(gradients):
        soft = model(ids, attention_mask=mask, soft_pruning=script)
        untouched = model(ids, attention_mask=mask, soft_pruning=Scripted([None] * 3, masks))
        dense = run(model, ids, mask, gradients)
    assert text_error(soft.logits, dense.logits) <= 1e-5
    assert torch.equal(soft.logits, untouched.logits), "None leaves the weights as they are"
    for ours, theirs in zip(script.importance, dense.pruning.importance, strict=True):
        torch.testing.assert_close(ours, packed(theirs, mask), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("protect_first", [True, False], ids=["first_protected", "first_free"])
@pytest.mark.parametrize("position", ["after_attention", "before_layer"])
@pytest.mark.parametrize("criterion", ["threshold", "topk"])
def test_the_limit_is_removal(criterion, position, protect_first, denominator):
    """Weights 0 and 1 by what a pruned model removed, layer by layer: the same states and scores of what is left in it.

    A decision after the attention of layer l and one before layer l + 1 leave the same tokens to layer l + 1: in both cases
    the pruner, asked after layer l, gives the weights that hold there.
    """
    plain, (ids, mask) = random_bert(num_hidden_layers=4), random_batch(LENGTHS, seed=1)
    options = {"position": position, "score_denominator": denominator, "protect_first": protect_first}
    shares = (0.9, 0.75, 0.6, 0.5) if position == "after_attention" else (1.0, 0.8, 0.6, 0.5)
    pruning = make_pruning(plain, ids, mask, criterion, shares, **options)
    hard = run(pruned_copy(tk, plain, pruning), ids, mask)
    kept = hard.pruning.kept_mask  # row l: in layer l's attention
    assert all(kept[row].sum() < kept[row - 1].sum() for row in (2, 3)), "the test must prune"

    script = Scripted([packed(row, mask).float() for row in kept[1:]], score_denominator=denominator)
    dense = tk.prune_model(copy.deepcopy(plain), None)
    with torch.no_grad():
        soft = dense(ids, attention_mask=mask, soft_pruning=script)
    assert text_error(soft.last_hidden_state, hard.last_hidden_state, kept[-1]) <= 1e-5
    first_kept = kept[-1][:, 0]
    assert text_error(soft.pooler_output[first_kept], hard.pooler_output[first_kept]) <= 1e-5
    for layer, (ours, theirs) in enumerate(zip(script.importance, hard.pruning.importance, strict=True)):
        alive = packed(kept[layer], mask)
        torch.testing.assert_close(ours[alive], packed(theirs, mask)[alive], rtol=1e-4, atol=1e-7)
        if layer:
            assert torch.equal(script.shown[layer], alive.float()), "the pruner sees the weights it gave"


def test_the_limit_is_removal_for_logits_and_gradients():
    """What trains is the same as well: parameters get the gradients that they get when the tokens are really gone."""
    plain, (ids, mask) = classifier(), random_batch((21, 33, 9, 48), seed=2)
    pruning = make_pruning(plain.bert, ids, mask, shares=(0.8, 0.6, 0.5))
    hard = pruned_copy(tk, plain, pruning)
    soft = tk.prune_model(copy.deepcopy(plain), None)
    out = hard(ids, attention_mask=mask, labels=torch.tensor([0, 1, 2, 0]), output_pruning=True)
    script = Scripted([packed(row, mask).float() for row in out.pruning.kept_mask[1:]])
    weighed = soft(ids, attention_mask=mask, labels=torch.tensor([0, 1, 2, 0]), soft_pruning=script)
    assert text_error(weighed.logits, out.logits) <= 1e-5
    out.loss.backward()
    weighed.loss.backward()
    assert_same_gradients(soft.named_parameters(), hard.named_parameters(), 1e-4)


def test_hidden_masks_multiply_the_layers_output():
    """masks="hidden": attention is that of all tokens, each layer's output is scaled by the weights just given."""
    plain, (ids, mask) = random_bert(num_hidden_layers=2), random_batch((5, 9), seed=3)
    weights = [torch.rand(int(mask.sum())) for _ in range(2)]
    model = tk.prune_model(copy.deepcopy(plain), None)
    script = Scripted(weights, "hidden")
    with torch.no_grad():
        soft = model(ids, attention_mask=mask, soft_pruning=script)
        expected, scores = plain_forward(plain, ids, mask, Scripted(weights, "hidden"))
    assert text_error(soft.last_hidden_state, expected) <= 1e-5
    for ours, theirs in zip(script.importance, scores, strict=True):
        torch.testing.assert_close(ours, packed(theirs, mask), rtol=1e-4, atol=1e-7)


def plain_forward(base, ids, mask, soft):
    """The definition, padded, with full attention maps, through the plain model's modules: (states (B, L, H), [(B, L)]).

    A_h[q, i] = softmax_i(q . k_i / sqrt(d) + log w_i); s_i = 1/(N_h D) sum_h sum_q w_q A_h[q, i], D = sum w, its root, n_0, or a number.
    """
    live = mask != 0
    cu_seqlens = nn.functional.pad(live.sum(dim=1).cumsum(0), (1, 0))
    x = base.embeddings(input_ids=ids, position_ids=(live.long().cumsum(dim=1) - 1).clamp(min=0))
    weights, scores = live.to(x.dtype), []
    for index, layer in enumerate(base.encoder.layer):
        module = layer.attention.self
        q, k, v = (
            p(x).unflatten(2, (module.num_attention_heads, -1)).transpose(1, 2) for p in (module.query, module.key, module.value)
        )
        counted = weights if soft.masks == "attention" else live.to(x.dtype)
        logits = q @ k.transpose(2, 3) / math.sqrt(module.attention_head_size)
        # A product with w where the program adds log w: the same, written in another way.
        numerator = (logits - logits.detach().amax(dim=-1, keepdim=True)).exp() * counted[:, None, None, :]
        probabilities = numerator / numerator.sum(dim=-1, keepdim=True)
        context = (probabilities @ v).transpose(1, 2).flatten(2)
        attended = layer.attention.output(context, x)
        x = layer.output(layer.intermediate(attended), attended)
        received = (probabilities * counted[:, None, :, None]).mean(dim=1).sum(dim=1)
        lengths = live.sum(dim=1, keepdim=True)
        rows = counted.sum(dim=1, keepdim=True)
        known = {"kept": rows, "sqrt_kept": rows.sqrt(), "initial": lengths}
        denominator = known.get(soft.score_denominator, soft.score_denominator)
        scores.append(received / denominator)
        given = soft(index, scores[-1][live], weights[live], cu_seqlens)
        if given is not None:
            weights = torch.zeros_like(weights).masked_scatter(live, given.to(weights.dtype))
            if soft.masks == "hidden":
                x = x * weights[..., None]
    return x, scores


# float64 runs the plain reference of the ops, float32 the compiled kernels and their backward where they are there
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-6), (torch.float32, 2e-4)], ids=["fp64", "fp32"])
@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("masks", ["attention", "hidden"])
def test_loss_and_gradients_are_those_of_the_definition(masks, denominator, dtype, tolerance):
    """Of the task's loss with a price on the weights: the same value, the same gradients of all weights and thresholds."""
    plain, (ids, mask) = classifier(num_hidden_layers=3), random_batch((7, 16, 1, 12), seed=4)
    labels = torch.tensor([0, 2, 1, 1])
    thresholds = [0.04, 0.06, 0.08] if denominator == "kept" else [0.02, 0.03, 0.05]

    expected = copy.deepcopy(plain).double()
    soft = Sigmoids(thresholds, 0.02, masks, denominator).double()
    states, _ = plain_forward(expected.bert, ids, mask, soft)
    logits = expected.classifier(expected.bert.pooler(states))
    wanted = nn.functional.cross_entropy(logits, labels) + 0.5 * soft.share
    wanted.backward()

    model = tk.prune_model(copy.deepcopy(plain).to(dtype), None)
    pruner = Sigmoids(thresholds, 0.02, masks, denominator).to(dtype)
    out = model(ids, attention_mask=mask, labels=labels, soft_pruning=pruner)
    loss = out.loss + 0.5 * pruner.share
    loss.backward()

    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=tolerance)
    assert text_error(out.logits, logits) <= tolerance
    ours = [*model.named_parameters(), *pruner.named_parameters()]
    theirs = [*expected.named_parameters(), *soft.named_parameters()]
    assert_same_gradients(ours, theirs, tolerance)
    assert (soft.thresholds.grad.abs() > 1e-4).all(), "the thresholds must matter"


def test_hidden_states_are_those_of_all_tokens():
    """num_layers + 1 of (B, L, H), none of them an exit state; the last one is the output."""
    model, (ids, mask) = tk.prune_model(random_bert(), None), random_batch((9, 4), seed=5)
    weights = [torch.rand(int(mask.sum())) for _ in range(3)]
    with torch.no_grad():
        out = model(ids, attention_mask=mask, soft_pruning=Scripted(weights, "hidden"), output_hidden_states=True)
        plainly = model(ids, attention_mask=mask, soft_pruning=Scripted(weights, "hidden"))
    assert [tuple(state.shape) for state in out.hidden_states] == [(2, 9, 64)] * 4
    assert torch.equal(out.hidden_states[-1], plainly.last_hidden_state)
    assert all((state[1, 4:] == 0).all() for state in out.hidden_states), "padding stays zero"
    assert not torch.equal(out.hidden_states[1], out.hidden_states[2])


@pytest.mark.parametrize("masks", ["attention", "hidden"])
def test_bfloat16_autocast_trains(masks):
    """Scores and weights stay float32; the loss is that of float32 to bfloat16's precision."""
    model, (ids, mask) = tk.prune_model(classifier(), None), random_batch((21, 9, 33), seed=6)
    labels, pruner = torch.tensor([0, 1, 2]), Sigmoids([0.02, 0.03, 0.04], 0.02, masks, "kept")
    exact = model(ids, attention_mask=mask, labels=labels, soft_pruning=pruner)
    pruner.share = 0.0
    with torch.autocast("cpu", torch.bfloat16):
        out = model(ids, attention_mask=mask, labels=labels, soft_pruning=pruner)
    assert pruner.share.dtype == torch.float32
    assert text_error(out.logits, exact.logits) <= 0.1
    (out.loss + pruner.share).backward()
    assert pruner.thresholds.grad.isfinite().all() and (pruner.thresholds.grad != 0).all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_weights_are_exactly_zero_for_a_whole_text():
    """A text none of whose tokens counts any more takes part no further; the others do not notice, and nothing becomes NaN."""
    model, (ids, mask) = tk.prune_model(random_bert(), None), random_batch((5, 7), seed=7)
    weights = torch.ones(12)
    weights[:5] = 0.0
    script = Scripted([weights] * 3)
    with torch.no_grad():
        out = model(ids, attention_mask=mask, soft_pruning=script)
        alone = model(ids[1:], attention_mask=mask[1:], soft_pruning=Scripted([None] * 3))
    assert text_error(out.last_hidden_state[1:], alone.last_hidden_state) <= 1e-5
    assert out.last_hidden_state.isfinite().all()
    assert all(scores.isfinite().all() for scores in script.importance)


def without(name):
    """A pruner that lacks an attribute."""
    script = Scripted([None] * 3)
    delattr(script, name)
    return script


BAD = {
    "callable": (TypeError, lambda: "ltp"),
    "'attention', 'hidden'": (ValueError, lambda: Scripted([None] * 3, masks="embeddings")),
    "soft_pruning.masks": (ValueError, lambda: without("masks")),
    "got 0": (ValueError, lambda: Scripted([None] * 3, score_denominator=0)),
    "got 'all'": (ValueError, lambda: Scripted([None] * 3, score_denominator="all")),
    "got 1.5": (ValueError, lambda: Scripted([None] * 3, score_denominator=1.5)),
    "got True": (ValueError, lambda: Scripted([None] * 3, score_denominator=True)),
    "soft_pruning.score_denominator": (ValueError, lambda: without("score_denominator")),
    r"shape \(12,\).*shape \(3,\) after layer 0": (ValueError, lambda: Scripted([torch.ones(3)] * 3)),
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_no_soft_pruning(message):
    error, build = BAD[message]
    model, (ids, mask) = tk.prune_model(random_bert(), None), random_batch((5, 7))
    with pytest.raises(error, match=message):
        model(ids, attention_mask=mask, soft_pruning=build())
    model(ids, attention_mask=mask)  # and the model is as it was


def test_output_pruning_has_nothing_to_report():
    model, (ids, mask) = tk.prune_model(random_bert(), None), random_batch((5, 7))
    with pytest.raises(ValueError, match="output_pruning.*soft_pruning"):
        model(ids, attention_mask=mask, soft_pruning=Scripted([None] * 3), output_pruning=True)


def test_pruning_in_the_configuration_does_not_act():
    """The soft run weighs as it is told, whatever the model would prune by itself."""
    plain, (ids, mask) = random_bert(BertModel), random_batch((9, 5))
    pruned = tk.prune_model(copy.deepcopy(plain), tk.PruningConfig.top([1.0, 0.5, 0.5]))
    dense = tk.prune_model(plain, None)
    weights = [torch.rand(14) for _ in range(3)]
    with torch.no_grad():
        a, b = (m(ids, attention_mask=mask, soft_pruning=Scripted(weights)).last_hidden_state for m in (pruned, dense))
    assert torch.equal(a, b)


def test_a_frozen_model_runs_it_without_gradients_only():
    """Freezing leaves packed weights, which cannot train; weighing works on them all the same."""
    model, (ids, mask) = tk.prune_model(random_bert(), None), random_batch((9, 5))
    weights = [torch.rand(14) for _ in range(3)]
    with torch.no_grad():
        expected = model(ids, attention_mask=mask, soft_pruning=Scripted(weights)).last_hidden_state
        model.freeze_for_inference()
        frozen = model(ids, attention_mask=mask, soft_pruning=Scripted(weights)).last_hidden_state
    assert text_error(frozen, expected) <= 1e-5
    with pytest.raises(RuntimeError, match="unfreeze"):
        model(ids, attention_mask=mask, soft_pruning=Scripted(weights))
