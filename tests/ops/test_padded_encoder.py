"""The public function of the padded_encoder op: the encoder op between padded tensors, and what it asks of its arguments."""

import pytest
import torch

import tokprune_kernels as tk

from .samples import encoder_weights, mask_of, randn

LENGTHS, LENGTH, HIDDEN, WIDE = (4, 0, 3), 5, 48, 70
WEIGHTS = encoder_weights(2, HIDDEN, WIDE, torch.float32)
LAYERS = {"weights": WEIGHTS, "eps": [1e-5] * 4, "heads": 3, "activation": "gelu", "scale": 0.25}


def arguments(**changes):
    return {"x": randn(len(LENGTHS), LENGTH, HIDDEN), "attention_mask": mask_of(LENGTHS, LENGTH), **LAYERS} | changes


def by_the_encoder_op(x, attention_mask, score_denominator, readout, **rule):
    """Packed, run and restored one by one."""
    rows, cu_seqlens, token_idx = tk.ops.pack(x, attention_mask)
    lengths = cu_seqlens.diff()
    fixed = {"initial": lengths.clamp(min=1).float(), 7: torch.full((len(lengths),), 7.0)}
    place = {"token_idx": token_idx, "places": x.shape[0] * x.shape[1]} if readout in ("all", "survivor_mean") else {}
    out = tk.ops.encoder(rows, cu_seqlens, int(lengths.max()), **LAYERS, **rule, readout=readout, **place,
                         denominators=fixed.get(score_denominator), sqrt_rows=score_denominator == "sqrt_kept")  # fmt: skip
    return out.view(x.shape) if place else out


@pytest.mark.parametrize("readout", ("all", "survivor_mean", "first", "first_only"))
@pytest.mark.parametrize("score_denominator", ("kept", "sqrt_kept", "initial", 7))
def test_is_the_encoder_op_between_padded_tensors(score_denominator, readout):
    given = arguments()
    for rule in ({"thresholds": [0.0, 0.2]}, {"keep_ratios": [1.0, 0.5], "before_layer": True}, {}):
        out = tk.ops.padded_encoder(**given, **rule, score_denominator=score_denominator, readout=readout)
        expected = by_the_encoder_op(given["x"], given["attention_mask"], score_denominator, readout, **rule)
        assert torch.equal(out, expected)


def test_protected_places_stay():
    protected = torch.zeros(len(LENGTHS), LENGTH, dtype=torch.bool)
    protected[0, 2] = True
    alone = {"eps": [1e-5] * 2, "weights": WEIGHTS[:12]}  # nothing reaches 2: those that leave have the state after one layer
    out = tk.ops.padded_encoder(**arguments(), thresholds=[0.0, 2.0], protected=protected)
    left = (out == tk.ops.padded_encoder(**arguments(**alone))).all(dim=2)
    assert left.tolist()[0] == [False, True, False, True, True]  # the last is padding: zeros in both


def test_padding_is_not_read():
    given = arguments()
    expected = tk.ops.padded_encoder(**given)
    given["x"][mask_of(LENGTHS, LENGTH) == 0] = float("nan")
    assert torch.equal(tk.ops.padded_encoder(**given), expected)


WRONG = {
    "packed": ({"x": randn(7, HIDDEN)}, ValueError, "3 dimension"),
    "mask": ({"attention_mask": mask_of(LENGTHS, LENGTH + 1)}, ValueError, "attention_mask"),
    "dtype": ({"x": randn(3, LENGTH, HIDDEN).double()}, TypeError, "x must be torch.float32"),
    "denominator": ({"score_denominator": "all"}, ValueError, "'kept', 'sqrt_kept', 'initial' or a positive int, got 'all'"),
    "no denominator": ({"score_denominator": 0}, ValueError, "positive int, got 0"),
    "protected": ({"protected": torch.ones(3, 4, dtype=torch.bool)}, ValueError, "protected must have the shape"),
    "readout": ({"readout": "last"}, ValueError, "readout must be one of"),
    "both": ({"thresholds": [0.1, 0.1], "keep_ratios": [1.0, 0.5]}, ValueError, "not both"),
    "heads": ({"heads": 5}, ValueError, "heads must divide the 48 columns"),
    "weights": ({"weights": WEIGHTS[:-1]}, ValueError, "12 tensors and 2 numbers a layer"),
    "unprotected": ({"readout": "first", "protect_first": False, "thresholds": [0.1] * 2}, ValueError, "protect_first=False"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name):
    changes, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        tk.ops.padded_encoder(**arguments(**changes))


RAW = {0: randn(7, HIDDEN), 1: mask_of(LENGTHS, 6), 2: WEIGHTS[:-1], 10: -3, 11: torch.ones(3, 4, dtype=torch.bool), 13: 4}


@pytest.mark.parametrize("position", RAW)
def test_the_bare_op_refuses_them_too(position):
    """It never reads out of bounds, whoever calls it."""
    given = arguments()
    raw = [given["x"], given["attention_mask"], WEIGHTS, [1e-5] * 4, 3, 1, 0.25, [], False, False, 0, None, True, 0]
    torch.ops.tokprune.padded_encoder(*raw)
    raw[position] = RAW[position]
    with pytest.raises((ValueError, TypeError)):
        torch.ops.tokprune.padded_encoder(*raw)


def test_gradients_are_refused():
    out = tk.ops.padded_encoder(**arguments(x=randn(3, LENGTH, HIDDEN).requires_grad_()))
    with pytest.raises(RuntimeError, match="for inference"):
        out.sum().backward()
