"""Attention maps, for who asks for them: Hugging Face's where nothing is pruned, without rows and columns of pruned tokens elsewhere."""

import warnings

import pytest
import tokprune_kernels as tk
import torch
import transformers

from ..oracle import Pruning
from .helpers import decided_texts, make_pruning, oracle64, pruned_copy, random_batch, random_bert, run, text_error, to_config

IDS, MASK = random_batch((16, 0, 4, 7, 1))
SLOW = "attention maps were asked for"


@pytest.mark.parametrize("gradients", [False, True], ids=["no_grad", "grad"])
@pytest.mark.parametrize("where", ["call", "configuration"])
@pytest.mark.parametrize("name", ["BertModel", "BertForSequenceClassification", "BertForTokenClassification"])
def test_unpruned_they_are_hugging_faces(name, where, gradients):
    plain = random_bert(getattr(transformers, name), attn_implementation="eager")
    ids, mask = random_batch((16, 4, 7, 1))
    asked = {"output_attentions": True} if where == "call" else {}
    plain.config.output_attentions = where == "configuration"
    with torch.no_grad():
        expected = plain(ids, attention_mask=mask, **asked)
    model = pruned_copy(tk, plain, None)
    with pytest.warns(UserWarning, match=SLOW):
        out = run(model, ids, mask, gradients, **asked)
    live = mask.bool()
    both = live[:, None, :, None] & live[:, None, None, :]
    assert len(out.attentions) == 3
    for ours, theirs in zip(out.attentions, expected.attentions, strict=True):
        assert ours.shape == theirs.shape
        assert text_error(ours, theirs * both) <= 1e-5
    assert text_error(out[0], expected[0], mask if out[0].dim() == 3 else None) <= 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(model, ids, mask, gradients, **asked)  # it is said once


@pytest.mark.filterwarnings(f"ignore:tokprune_kernels. {SLOW}")
@pytest.mark.parametrize("gradients", [False, True], ids=["no_grad", "grad"])
@pytest.mark.parametrize("criterion", ["threshold", "topk"])
@pytest.mark.parametrize("position", ["after_attention", "before_layer"])
def test_pruned_tokens_have_none(criterion, position, gradients):
    plain = random_bert()
    pruning = make_pruning(plain, IDS, MASK, criterion, position=position)
    expected = oracle64(plain, IDS, MASK, pruning)
    model = pruned_copy(tk, plain, pruning)
    usual, out = run(model, IDS, MASK, gradients), run(model, IDS, MASK, gradients, output_attentions=True)
    ok = decided_texts(expected)
    assert torch.equal(out.pruning.kept_mask[:, ok], expected.kept_mask[:, ok])
    assert text_error(out.last_hidden_state[ok], usual.last_hidden_state[ok]) <= 1e-5
    assert text_error(out.last_hidden_state[ok], expected.last_hidden_state[ok]) <= 1e-5
    for layer, maps in enumerate(out.attentions):
        alive = out.pruning.kept_mask[layer]
        rows = maps.sum(dim=3)
        assert torch.allclose(rows, alive[:, None].float().expand_as(rows), atol=1e-5), "living rows sum to one, the others are zero"
        assert not maps.masked_select(~alive[:, None, None, :]).any(), "dead columns are zero"
        received = maps.sum(dim=(1, 2)) / maps.shape[1] / alive.sum(1).clamp(min=1)[:, None]
        assert text_error(received, out.pruning.importance[layer]) <= 1e-5


@pytest.mark.filterwarnings(f"ignore:tokprune_kernels. {SLOW}")
def test_outputs_pass_through_what_is_handed_out():
    """Gradients of hidden states and maps are asked of what the output holds."""
    model = pruned_copy(tk, random_bert(), Pruning("topk", (1.0, 0.6, 0.5)))
    out = model(IDS, attention_mask=MASK, output_attentions=True, output_hidden_states=True)
    for kept in (*out.hidden_states[:-1], *out.attentions):
        kept.retain_grad()
    out.last_hidden_state.sum().backward()
    assert all(kept.grad is not None and kept.grad.any() for kept in (*out.hidden_states[:-1], *out.attentions))


@pytest.mark.filterwarnings(f"ignore:tokprune_kernels. {SLOW}")
def test_bfloat16():
    model = pruned_copy(tk, random_bert(), Pruning("topk", (1.0, 0.6, 0.5))).bfloat16()
    out = run(model, IDS, MASK, output_attentions=True)
    assert {maps.dtype for maps in out.attentions} == {torch.bfloat16}
    assert text_error(out.last_hidden_state, run(model, IDS, MASK).last_hidden_state) <= 0.1


@pytest.mark.filterwarnings(f"ignore:tokprune_kernels. {SLOW}")
def test_order_in_a_tuple():
    plain = random_bert(attn_implementation="eager")
    asked = {"output_attentions": True, "output_hidden_states": True, "return_dict": False}
    ids, mask = random_batch((7, 3))
    with torch.no_grad():
        theirs = plain(ids, attention_mask=mask, **asked)
        ours = tk.prune_model(plain, to_config(tk, None))(ids, attention_mask=mask, **asked)
    assert [type(one) for one in ours] == [type(one) for one in theirs[:4]]  # beside an empty tuple for cross attention
    assert ours[3][0].dim() == 4 and ours[2][0].dim() == 3
