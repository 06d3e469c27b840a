"""What the last states are read for: the tokens themselves, a mean over them, or the first alone."""

import pytest
import tokprune_kernels as tk
import torch
import transformers

from .helpers import random_batch, random_bert, repad, run, text_error

LENGTHS = (16, 0, 1, 7, 48)
RATIOS = [1.0, 0.6, 0.5]


def pruned(readout, plain=None, **options):
    return tk.prune_model(plain or random_bert(), tk.PruningConfig.top(RATIOS, readout=readout, **options))


def mean_over(states, mask):
    gate = mask[..., None].to(states.dtype)
    return (states * gate).sum(1) / gate.sum(1).clamp(min=1)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("path", ["whole", "loop", "grad", "soft off"])
def test_a_mean_over_all_tokens_is_the_survivors(side, path):
    ids, mask = repad(*random_batch(LENGTHS), side, 50)
    expected = run(pruned("tokens"), ids, mask)
    survivors = mean_over(expected.last_hidden_state, expected.pruning.kept_mask[-1])
    model = pruned("survivor_mean")
    with torch.set_grad_enabled(path == "grad"):
        out = model(ids, attention_mask=mask, output_pruning=path == "loop")
    states = out.last_hidden_state
    assert text_error(mean_over(states, mask), survivors) <= 1e-5
    kept = expected.pruning.kept_mask[-1]
    assert text_error(states, expected.last_hidden_state, kept) <= 1e-5, "survivors have their own states"
    assert not states[mask == 0].any(), "padding is zero"
    assert text_error(out.pooler_output[mask.any(1)], expected.pooler_output[mask.any(1)]) <= 1e-5


def test_bfloat16_means_are_summed_in_float32():
    ids, mask = random_batch((48, 7))
    model = pruned("survivor_mean").bfloat16()
    with torch.no_grad():
        whole = model(ids, attention_mask=mask).last_hidden_state
    loop = run(model, ids, mask)
    left = mean_over(loop.last_hidden_state.float(), loop.pruning.kept_mask[-1])
    assert text_error(mean_over(whole.float(), mask), left) <= 2e-2


def test_gradients_reach_the_survivors_only():
    ids, mask = random_batch((16, 7))
    model = pruned("survivor_mean")
    out = model(ids, attention_mask=mask, output_hidden_states=True, output_pruning=True)
    states = out.hidden_states[-2]
    states.retain_grad()
    mean_over(out.last_hidden_state, mask).sum().backward()
    touched = states.grad.abs().sum(-1) > 0
    assert not touched[~out.pruning.kept_mask[-2]].any() and touched.any()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("dense", [False, True])
def test_the_first_token_alone(side, dense, monkeypatch):
    from tokprune_kernels.layers import whole

    ids, mask = repad(*random_batch(LENGTHS), side, 50)
    ratios = [1.0] * 3 if dense else RATIOS
    expected = run(tk.prune_model(random_bert(), tk.PruningConfig.top(ratios)), ids, mask)
    model = tk.prune_model(random_bert(), tk.PruningConfig.top(ratios, readout="first"))
    seen = []
    monkeypatch.setattr(whole.OPS, "encoder", lambda *a, op=whole.OPS.encoder: (seen.append(a[14]), op(*a))[1])
    with torch.no_grad():
        out = model(ids, attention_mask=mask)
    assert seen == [whole.READOUTS["first_only"]], "the last layer computes that row alone"
    first = mask.argmax(1)
    rows = torch.arange(len(ids))
    some = mask.any(1)
    assert out.last_hidden_state.shape == (*ids.shape, 64)
    theirs = expected.last_hidden_state[rows, first]
    assert text_error(out.last_hidden_state[rows, first][some], theirs[some]) <= 1e-5
    assert text_error(out.pooler_output[some], expected.pooler_output[some]) <= 1e-5


@pytest.mark.parametrize("readout", ["survivor_mean", "first"])
@pytest.mark.parametrize("name", ["BertForTokenClassification", "BertForSequenceClassification"])
def test_heads_read_what_they_need(readout, name):
    plain = random_bert(getattr(transformers, name))
    ids, mask = random_batch((16, 7))
    expected = run(pruned("tokens", random_bert(getattr(transformers, name))), ids, mask).logits
    assert torch.equal(run(pruned(readout, plain), ids, mask).logits, expected)


def test_kept_in_the_checkpoint(tmp_path):
    model = pruned("survivor_mean")
    model.save_pretrained(tmp_path)
    back = transformers.AutoModel.from_pretrained(tmp_path)
    assert back.config.pruning["readout"] == "survivor_mean"
    ids, mask = random_batch((16, 7))
    with torch.no_grad():
        assert torch.equal(back(ids, attention_mask=mask)[0], model(ids, attention_mask=mask)[0])


def test_frozen():
    ids, mask = random_batch((16, 7))
    model = pruned("survivor_mean")
    with torch.no_grad():
        expected = model(ids, attention_mask=mask)[0]
        assert torch.equal(model.freeze_for_inference()(ids, attention_mask=mask)[0], expected)


def test_unknown():
    with pytest.raises(ValueError, match="readout must be one of 'tokens', 'survivor_mean', 'first'"):
        tk.PruningConfig.dense().from_dict({"readout": "mean"})


def test_one_text_as_in_any_batch():
    ids, mask = random_batch((16, 7, 33))
    model = pruned("survivor_mean")
    with torch.no_grad():
        together = mean_over(model(ids, attention_mask=mask)[0], mask)
        alone = mean_over(model(ids[1:2, :7])[0], torch.ones(1, 7))
    assert text_error(alone, together[1:2]) <= 1e-5


