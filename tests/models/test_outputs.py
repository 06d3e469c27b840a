"""Shapes, dtypes and contents of what a pruned model returns, down to empty and single-token texts."""

import copy

import pytest
import tokprune_kernels as tk
import torch

from ..oracle import Pruning, oracle_forward
from .helpers import make_pruning, one_thread, oracle64, pruned_copy, random_batch, random_bert, repad, run, text_error

POSITIONS = ("after_attention", "before_layer")
PRUNING = Pruning("topk", (1.0, 0.6, 0.5), position="before_layer")
TOLERANCE = 1e-5


@pytest.fixture(params=[False, True], ids=["no_grad", "grad"])
def gradients(request):
    return request.param


@pytest.mark.parametrize("pruning", [None, PRUNING], ids=["dense", "pruned"])
def test_pruning_output_shapes_and_dtypes(pruning, gradients):
    ids, mask = random_batch()
    out = run(pruned_copy(tk, random_bert(), pruning), ids, mask, gradients).pruning
    batch, length = ids.shape
    assert (out.kept_lengths.shape, out.kept_lengths.dtype) == ((4, batch), torch.int64)
    assert (out.kept_mask.shape, out.kept_mask.dtype) == ((4, batch, length), torch.bool)
    assert (out.importance.shape, out.importance.dtype) == ((3, batch, length), torch.float32)
    assert torch.equal(out.kept_mask.sum(-1), out.kept_lengths)
    assert torch.equal(out.kept_mask[0], mask.bool())
    assert not out.importance[~out.kept_mask[:-1]].any()
    torch.testing.assert_close(out.importance.sum(-1), (mask.sum(1) > 0).float().expand(3, -1), rtol=1e-5, atol=0)


def test_pruning_output_only_when_asked():
    ids, mask = random_batch()
    model = pruned_copy(tk, random_bert(), PRUNING)
    with torch.no_grad():
        out = model(ids, attention_mask=mask)
    assert getattr(out, "pruning", None) is None
    assert torch.equal(out.last_hidden_state, run(model, ids, mask).last_hidden_state)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("criterion", ["threshold", "topk"])
def test_hidden_states_carry_exit_states(position, criterion, gradients):
    model = random_bert(num_hidden_layers=4)
    ids, mask = random_batch()
    pruning = make_pruning(model, ids, mask, criterion, position=position)
    out = run(pruned_copy(tk, model, pruning), ids, mask, gradients, output_hidden_states=True)
    expected = oracle64(model, ids, mask, pruning)
    assert len(out.hidden_states) == 5
    assert torch.equal(out.hidden_states[-1], out.last_hidden_state)
    for ours, theirs in zip(out.hidden_states, expected.hidden_states, strict=True):
        assert text_error(ours, theirs) <= TOLERANCE
        assert not ours[mask == 0].any(), "padding must be zero"
    for layer in range(4):
        dead = mask.bool() & ~out.pruning.kept_mask[layer + 1 if position == "after_attention" else layer]
        assert torch.equal(out.hidden_states[layer + 1][dead], out.hidden_states[layer][dead])


def test_hidden_states_only_when_asked():
    ids, mask = random_batch()
    assert run(pruned_copy(tk, random_bert(), PRUNING), ids, mask).hidden_states is None


def test_hidden_states_through_the_configuration():
    """config.output_hidden_states=True asks for them as the argument does."""
    ids, mask = random_batch()
    model = pruned_copy(tk, random_bert(output_hidden_states=True), PRUNING)
    out = run(model, ids, mask)
    assert [tuple(h.shape) for h in out.hidden_states] == [(*ids.shape, 64)] * 4


@pytest.mark.parametrize("width", [48, 60])
def test_left_padding(gradients, width):
    """[CLS] is the first live token: pooled output, states and kept positions follow it to its column."""
    model = random_bert()
    ids, mask = repad(*random_batch(), "left", width)
    pruning = make_pruning(model, ids, mask)
    out = run(pruned_copy(tk, model, pruning), ids, mask, gradients)
    expected = oracle64(model, ids, mask, pruning)
    assert torch.equal(out.pruning.kept_mask, expected.kept_mask)
    assert text_error(out.last_hidden_state, expected.last_hidden_state) <= TOLERANCE
    some = mask.sum(1) > 0
    assert text_error(out.pooler_output[some], expected.pooler_output[some]) <= TOLERANCE
    assert not out.last_hidden_state[mask == 0].any()


def test_first_token_pruned_pools_its_exit_state(gradients):
    model = random_bert()
    ids, mask = random_batch((16, 7, 48, 33))
    pruning = make_pruning(model, ids, mask, shares=(1.0, 0.4, 0.4), protect_first=False)
    expected = oracle64(model, ids, mask, pruning)
    assert not expected.kept_mask[-1][:, 0].all(), "some [CLS] must go"
    out = run(pruned_copy(tk, model, pruning), ids, mask, gradients)
    assert text_error(out.pooler_output, expected.pooler_output) <= TOLERANCE


def test_absent_mask_means_all_live(gradients):
    model = pruned_copy(tk, random_bert(), PRUNING)
    ids, _ = random_batch((20, 20, 20))
    absent, full = run(model, ids, None, gradients), run(model, ids, torch.ones_like(ids), gradients)
    assert torch.equal(absent.last_hidden_state, full.last_hidden_state)
    assert torch.equal(absent.pruning.kept_mask, full.pruning.kept_mask)


@pytest.mark.parametrize("return_dict", [False, True])
@pytest.mark.parametrize("hidden", [False, True], ids=["", "hidden_states"])
def test_return_dict_false_gives_the_same_tensors_as_a_tuple(return_dict, hidden):
    ids, mask = random_batch()
    model = pruned_copy(tk, random_bert(), PRUNING)
    named = run(model, ids, mask, output_hidden_states=hidden)
    out = run(model, ids, mask, output_hidden_states=hidden, return_dict=return_dict)
    if return_dict:
        assert torch.equal(out.last_hidden_state, named.last_hidden_state)
        return
    assert isinstance(out, tuple)
    assert torch.equal(out[0], named.last_hidden_state)
    assert torch.equal(out[1], named.pooler_output)
    assert torch.equal(out[-1].kept_mask, named.pruning.kept_mask)
    assert len(out) == 3 + hidden
    if hidden:
        assert all(torch.equal(a, b) for a, b in zip(out[2], named.hidden_states, strict=True))


def test_return_dict_false_without_pruning_output_has_hugging_face_length():
    ids, mask = random_batch()
    plain = random_bert()
    model = pruned_copy(tk, plain, PRUNING)
    with torch.no_grad():
        ours = model(ids, attention_mask=mask, return_dict=False)
        theirs = plain(ids, attention_mask=mask, return_dict=False)
    assert [tuple(t.shape) for t in ours] == [tuple(t.shape) for t in theirs]


@pytest.mark.parametrize("lengths", [(0, 5, 0, 0, 3), (5, 0), (0, 0, 7)])
def test_empty_rows_are_zero_and_disturb_nobody(lengths, gradients):
    model = pruned_copy(tk, random_bert(), PRUNING)
    ids, mask = random_batch(lengths)
    out = run(model, ids, mask, gradients, output_hidden_states=True)
    empty = mask.sum(1) == 0
    assert not out.last_hidden_state[empty].any()
    assert not out.pruning.kept_lengths[:, empty].any()
    assert out.pooler_output.isfinite().all()
    assert all(not states[empty].any() for states in out.hidden_states)
    others = run(model, ids[~empty], mask[~empty], gradients)
    assert text_error(out.last_hidden_state[~empty], others.last_hidden_state) <= TOLERANCE


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("pruning", [None, PRUNING], ids=["dense", "pruned"])
def test_no_token_at_all(batch, pruning, gradients):
    model = pruned_copy(tk, random_bert(), pruning)
    ids, mask = random_batch((0,) * batch, width=6)
    out = run(model, ids, mask, gradients, output_hidden_states=True)
    assert out.last_hidden_state.shape == (batch, 6, 64)
    assert not out.last_hidden_state.any()
    assert len(out.hidden_states) == 4
    assert not out.pruning.kept_lengths.any()
    assert out.pruning.importance.shape == (3, batch, 6)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(("criterion", "value"), [("threshold", 50.0), ("topk", 0.01)])
def test_single_token_texts(position, criterion, value, gradients):
    """A lone token has importance 1 and survives everything."""
    model = random_bert()
    ids, mask = random_batch((1, 1, 1, 1), width=3)
    start = 0.0 if criterion == "threshold" else 1.0
    pruning = Pruning(criterion, (start, value, value), position=position, protect_first=False)
    out = run(pruned_copy(tk, model, pruning), ids, mask, gradients)
    assert (out.pruning.kept_lengths == 1).all()
    torch.testing.assert_close(out.pruning.importance[:, :, 0], torch.ones(3, 4), rtol=1e-6, atol=0)
    assert text_error(out.last_hidden_state, oracle64(model, ids, mask, pruning).last_hidden_state) <= TOLERANCE


@pytest.mark.parametrize("masked", [True, False], ids=["mask", "no_mask"])
def test_no_text_at_all(masked, gradients):
    """A batch of 0 texts of width 5, as Hugging Face's model takes it."""
    ids = torch.zeros((0, 5), dtype=torch.long)
    out = run(pruned_copy(tk, random_bert(), PRUNING), ids, torch.ones_like(ids) if masked else None, gradients)
    assert out.last_hidden_state.shape == (0, 5, 64)
    assert out.pooler_output.shape == (0, 64)
    assert out.pruning.kept_mask.shape == (4, 0, 5)


def test_ways_to_pass_arguments():
    """Positional as in Hugging Face's signature, by name, int32 ids, strided views: all the same."""
    model = pruned_copy(tk, random_bert(), PRUNING)
    ids, mask = random_batch()
    types, positions = torch.randint(0, 2, ids.shape), torch.randint(0, 64, ids.shape)
    wide, strided = torch.stack([ids, mask], dim=-1), slice(None, None, 2)
    tall = mask.repeat_interleave(2, dim=0)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask, token_type_ids=types, position_ids=positions)
        for out in (
            model(ids, mask, types, positions),
            model(ids, mask, types, position_ids=positions),
            model(ids.int(), mask, types, positions),
            model(wide[..., 0], wide[..., 1], types, positions),
            model(ids, tall[strided], types.T.contiguous().T, positions),
        ):
            assert torch.equal(out.last_hidden_state, expected.last_hidden_state)


def test_return_dict_false_through_the_configuration():
    ids, mask = random_batch()
    out = run(pruned_copy(tk, random_bert(return_dict=False), PRUNING), ids, mask)
    assert isinstance(out, tuple) and len(out) == 3
    assert out[2].kept_mask.shape == (4, *ids.shape)


@pytest.mark.parametrize("how", ["autocast", "half"])
def test_other_precisions_run(how):
    """bfloat16 autocast and float16 models: no packed weights there, but the same answer to their precision."""
    plain = random_bert()
    plain.load_state_dict(copy.deepcopy(plain).half().state_dict())  # numbers that float16 holds
    ids, mask = random_batch()
    model = pruned_copy(tk, plain.half() if how == "half" else plain, PRUNING)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
        out = run(model, ids, mask)
    forced = oracle64(plain, ids, mask, PRUNING, forced_kept_mask=out.pruning.kept_mask)
    assert text_error(out.last_hidden_state, forced.last_hidden_state) <= 2e-2
    if how == "autocast":
        outside, expected = run(model, ids, mask), oracle64(plain, ids, mask, PRUNING)
        assert text_error(outside.last_hidden_state, expected.last_hidden_state) <= 1e-5


def test_modes_agree():
    """no_grad, inference_mode and a forward that could be differentiated give the same result."""
    model = pruned_copy(tk, random_bert(), PRUNING)
    ids, mask = random_batch()
    expected = run(model, ids, mask)
    with torch.inference_mode():
        inference = model(ids, attention_mask=mask, output_pruning=True)
    with_grad = run(model, ids, mask, gradients=True)
    assert torch.equal(inference.last_hidden_state, expected.last_hidden_state)
    assert with_grad.last_hidden_state.requires_grad
    assert text_error(with_grad.last_hidden_state, expected.last_hidden_state) <= TOLERANCE
    assert torch.equal(with_grad.pruning.kept_mask, expected.pruning.kept_mask)


def test_results_belong_to_the_caller():
    """A later call must not write into tensors handed out earlier."""
    model = pruned_copy(tk, random_bert(), PRUNING)
    ids, mask = random_batch()
    first = run(model, ids, mask, output_hidden_states=True)
    copies = [t.clone() for t in (first.last_hidden_state, first.pruning.importance, *first.hidden_states)]
    run(model, *random_batch(seed=5), output_hidden_states=True)
    later = (first.last_hidden_state, first.pruning.importance, *first.hidden_states)
    assert all(torch.equal(a, b) for a, b in zip(copies, later, strict=True))


def test_inputs_are_not_modified():
    model = pruned_copy(tk, random_bert(), PRUNING)
    ids, mask = random_batch()
    kept_ids, kept_mask = ids.clone(), mask.clone()
    run(model, ids, mask)
    assert torch.equal(ids, kept_ids) and torch.equal(mask, kept_mask)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("criterion", ["threshold", "topk"])
def test_gradients_are_the_oracles(position, criterion):
    """The differentiable route, in float64: gradients of every parameter against masked autograd."""
    plain = random_bert().double()
    ids, mask = random_batch()
    pruning = make_pruning(plain, ids, mask, criterion, position=position)
    pruned = pruned_copy(tk, plain, pruning)
    weight = torch.randn(64, dtype=torch.float64)
    some = mask.sum(1) > 0
    with one_thread():
        for out in (run(pruned, ids, mask, gradients=True), oracle_forward(plain, ids, mask, pruning)):
            ((out.last_hidden_state * weight).sin().sum() + out.pooler_output[some].sum()).backward()
    for (name, ours), theirs in zip(pruned.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
