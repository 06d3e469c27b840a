"""prune_model on loaded models: every head, repeated pruning, training, several threads."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import tokprune_kernels as tk
import torch
import transformers
from torch import nn

from ..oracle import Pruning
from .helpers import make_pruning, oracle64, pruned_copy, random_batch, random_bert, repad, run, text_error, to_config

TOLERANCE = 1e-5
PRUNING = Pruning("topk", (1.0, 0.6, 0.5), position="before_layer")

# what each head makes of the base model's output, through its own Hugging Face modules
HEADS = {
    "BertForSequenceClassification": lambda m, o: {"logits": m.classifier(o.pooler_output)},
    "BertForTokenClassification": lambda m, o: {"logits": m.classifier(o.last_hidden_state)},
    "BertForQuestionAnswering": lambda m, o: dict(
        zip(("start_logits", "end_logits"), m.qa_outputs(o.last_hidden_state).unbind(-1))
    ),
    "BertForMaskedLM": lambda m, o: {"logits": m.cls(o.last_hidden_state)},
    "BertForNextSentencePrediction": lambda m, o: {"logits": m.cls(o.pooler_output)},
    "BertForPreTraining": lambda m, o: {"prediction_logits": m.cls.predictions(o.last_hidden_state)},
}


def head_model(name, **config):
    return random_bert(getattr(transformers, name), **config)


def oracle_head(model, ids, mask, pruning):
    """The head's outputs and the base oracle's, in float64."""
    double = copy.deepcopy(model).double()
    out = oracle64(double.bert, ids, mask, pruning)
    with torch.no_grad():
        return HEADS[type(model).__name__](double, out), out


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("gradients", [False, True], ids=["no_grad", "grad"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_heads(name, gradients, side):
    model = head_model(name)
    ids, mask = repad(*random_batch((16, 1, 7, 48, 33)), side, 50)
    pruning = make_pruning(model.bert, ids, mask)
    expected, base = oracle_head(model, ids, mask, pruning)
    out = run(pruned_copy(tk, model, pruning), ids, mask, gradients)
    assert torch.equal(out.pruning.kept_mask, base.kept_mask)
    for field, value in expected.items():
        assert text_error(getattr(out, field), value, mask if value.dim() > 2 else None) <= TOLERANCE


@pytest.mark.parametrize("name", HEADS)
def test_class_and_checkpoint_format_stay(name):
    plain = head_model(name)
    model = pruned_copy(tk, plain, PRUNING)
    assert type(model) is type(plain)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in plain.named_parameters()]
    run(model, *random_batch())
    assert list(model.state_dict()) == list(plain.state_dict()), "a forward added something to the checkpoint"
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), plain.state_dict().values()))


def test_prune_model_accepts_the_base_class_too():
    plain = random_bert()
    model = pruned_copy(tk, plain, PRUNING)
    assert type(model) is type(plain) and list(model.state_dict()) == list(plain.state_dict())
    assert model.config.pruning == to_config(tk, PRUNING).to_dict()


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "BertForTokenClassification"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_hidden_states_of_a_head(name, side):
    """A head that reads only [CLS] skips the restoring, but not when hidden states are asked for."""
    model = head_model(name)
    ids, mask = repad(*random_batch((16, 1, 7, 48)), side)
    _, base = oracle_head(model, ids, mask, PRUNING)
    out = run(pruned_copy(tk, model, PRUNING), ids, mask, output_hidden_states=True)
    for ours, theirs in zip(out.hidden_states, base.hidden_states, strict=True):
        assert text_error(ours, theirs) <= TOLERANCE


def test_base_of_a_classifier_called_directly():
    """model.bert(...) gives every position, although the classifier on top of it reads only [CLS]."""
    model = head_model("BertForSequenceClassification")
    ids, mask = random_batch((16, 1, 7, 48))
    pruned = pruned_copy(tk, model, PRUNING)
    run(pruned, ids, mask)
    expected = oracle64(model.bert, ids, mask, PRUNING)
    out = run(pruned.bert, ids, mask)
    assert torch.equal(out.pruning.kept_mask, expected.kept_mask)
    assert text_error(out.last_hidden_state, expected.last_hidden_state) <= TOLERANCE
    assert text_error(out.pooler_output, expected.pooler_output) <= TOLERANCE


@pytest.mark.parametrize("hidden", [False, True], ids=["", "hidden_states"])
@pytest.mark.parametrize("name", ["BertForSequenceClassification", "BertForTokenClassification"])
def test_return_dict_false_through_a_head(name, hidden):
    model = pruned_copy(tk, head_model(name), PRUNING)
    ids, mask = random_batch()
    named = run(model, ids, mask, output_hidden_states=hidden)
    out = run(model, ids, mask, output_hidden_states=hidden, return_dict=False)
    assert isinstance(out, tuple) and len(out) == 2 + hidden
    assert torch.equal(out[0], named.logits)
    assert torch.equal(out[-1].kept_lengths, named.pruning.kept_lengths)


def test_loss_and_gradients_through_a_classifier():
    model = pruned_copy(tk, head_model("BertForSequenceClassification", num_labels=3), PRUNING)
    ids, mask = random_batch((16, 1, 7, 48))
    labels = torch.tensor([0, 1, 2, 0])
    out = run(model, ids, mask, gradients=True, labels=labels)
    torch.testing.assert_close(out.loss, nn.functional.cross_entropy(out.logits, labels))
    out.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(p.grad.any() for n, p in model.named_parameters() if n.endswith("weight"))


def test_multiple_choice():
    """The head folds the choices into the batch; the base sees (B * choices, L)."""
    model = random_bert(transformers.BertForMultipleChoice)
    ids, mask = random_batch((16, 9, 7, 48))
    base = oracle64(model.bert, ids, mask, PRUNING)
    expected = copy.deepcopy(model).double().classifier(base.pooler_output).view(2, 2)
    out = run(pruned_copy(tk, model, PRUNING), ids.view(2, 2, -1), mask.view(2, 2, -1))
    assert text_error(out.logits, expected) <= TOLERANCE
    assert torch.equal(out.pruning.kept_lengths, base.kept_lengths)


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "BertForTokenClassification"])
def test_first_token_may_go(name):
    """Without protection [CLS] may be pruned: the head then reads its exit state."""
    model = head_model(name)
    ids, mask = random_batch((16, 7, 48, 33))
    pruning = make_pruning(model.bert, ids, mask, shares=(0.5, 0.4, 0.4), protect_first=False)
    expected, base = oracle_head(model, ids, mask, pruning)
    assert not base.kept_mask[-1][:, 0].all()
    out = run(pruned_copy(tk, model, pruning), ids, mask)
    assert text_error(out.logits, expected["logits"], mask if out.logits.dim() > 2 else None) <= TOLERANCE


class MeanPooler(nn.Module):
    """A pooler that reads every position."""

    def forward(self, states):
        return states.mean(dim=1)


def test_replaced_pooler_gets_all_positions():
    """Restoring is skipped for heads that read [CLS] only; with another pooler this is no such head any more."""
    model = head_model("BertForSequenceClassification")
    model.bert.pooler = MeanPooler()
    ids, mask = random_batch((16, 1, 7, 48))
    states = oracle64(model.bert, ids, mask, PRUNING).last_hidden_state
    expected = copy.deepcopy(model).double().classifier(states.mean(dim=1))
    assert text_error(run(pruned_copy(tk, model, PRUNING), ids, mask).logits, expected) <= TOLERANCE


def test_base_pruned_before_its_head():
    """prune_model(model.bert), then prune_model(model): the head answers output_pruning and set_pruning all the same."""
    model = head_model("BertForTokenClassification")
    ids, mask = random_batch()
    expected = run(pruned_copy(tk, model, PRUNING), ids, mask)
    tk.prune_model(model.bert, tk.PruningConfig.dense())
    tk.prune_model(model, to_config(tk, PRUNING))
    out = run(model, ids, mask)
    assert torch.equal(out.logits, expected.logits)
    assert torch.equal(out.pruning.kept_mask, expected.pruning.kept_mask)
    model.set_pruning(tk.PruningConfig.dense())
    assert torch.equal(run(model, ids, mask).pruning.kept_mask[-1], mask.bool())


def test_twice_is_set_pruning():
    plain = random_bert()
    ids, mask = random_batch()
    other = Pruning("topk", (0.7, 1.0, 0.4))
    expected = run(pruned_copy(tk, plain, other), ids, mask)
    twice = tk.prune_model(pruned_copy(tk, plain, PRUNING), to_config(tk, other))
    later = pruned_copy(tk, plain, PRUNING)
    run(later, ids, mask)
    later.set_pruning(to_config(tk, other))
    for model in (twice, later):
        out = run(model, ids, mask)
        assert torch.equal(out.last_hidden_state, expected.last_hidden_state)
        assert torch.equal(out.pruning.kept_mask, expected.pruning.kept_mask)
        assert model.config.pruning == to_config(tk, other).to_dict()


def test_refused_pruning_leaves_the_model_as_it_was():
    model = pruned_copy(tk, random_bert(), PRUNING)
    ids, mask = random_batch()
    before, config = run(model, ids, mask), copy.deepcopy(model.config.pruning)
    with pytest.raises(ValueError, match="keep_ratios"):
        model.set_pruning(tk.PruningConfig.top([1.0, 0.5]))
    assert model.config.pruning == config
    assert torch.equal(run(model, ids, mask).last_hidden_state, before.last_hidden_state)


@pytest.mark.parametrize("warm", [False, True], ids=["first_calls", "later_calls"])
def test_threads_share_a_model(warm):
    """Several Python threads at once, each with its own batch: what each gets alone."""
    plain = random_bert(hidden_size=128)
    model = pruned_copy(tk, plain, PRUNING)
    batches = [random_batch((40, 3 + seed, 17, 1, 25), seed=seed) for seed in range(6)]
    alone = [run(copy.deepcopy(model), *batch) for batch in batches]
    if warm:
        run(model, *batches[0])

    def work(index):
        return [run(model, *batches[index]) for _ in range(5)]

    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(work, range(6)))
    for expected, results in zip(alone, together):
        for out in results:
            assert torch.equal(out.pruning.kept_mask, expected.pruning.kept_mask)
            assert text_error(out.pruning.importance.transpose(0, 1), expected.pruning.importance.transpose(0, 1)) < 1e-6
            assert text_error(out.last_hidden_state, expected.last_hidden_state) < 1e-6


def test_hidden_dropout_is_applied_in_training():
    model = pruned_copy(tk, random_bert(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.0), PRUNING)
    ids, mask = random_batch()
    still = run(model, ids, mask, gradients=True).last_hidden_state
    model.train()
    one, two = (run(model, ids, mask, gradients=True).last_hidden_state for _ in range(2))
    assert text_error(one, two) > 1e-2
    model.eval()
    assert torch.equal(run(model, ids, mask, gradients=True).last_hidden_state, still)


def test_dropout_switched_on_by_itself_is_applied():
    """Monte Carlo dropout: an eval model whose dropout modules alone are set to training, before or after its first call."""
    plain = random_bert(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.0)
    for called_before in (False, True):
        model = pruned_copy(tk, plain, PRUNING)
        if called_before:
            run(model, *random_batch())
        for layer in model.encoder.layer:
            layer.output.dropout.train()
        one, two = (run(model, *random_batch()).last_hidden_state for _ in range(2))
        assert text_error(one, two) > 1e-2


def test_gradient_checkpointing_changes_no_gradient():
    plain = random_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    models = [pruned_copy(tk, plain, PRUNING).train() for _ in range(2)]
    # its name from transformers 5.23 on, and before
    getattr(models[1], "activation_checkpointing_enable", models[1].gradient_checkpointing_enable)()
    for model in models:
        run(model, *random_batch(), gradients=True).last_hidden_state.square().sum().backward()
    for (name, one), two in zip(models[0].encoder.named_parameters(), models[1].encoder.parameters()):
        torch.testing.assert_close(two.grad, one.grad, msg=lambda m, n=name: f"{n}: {m}")
