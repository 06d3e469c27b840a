"""The public function of the encoder op: what it asks of its arguments, and that the bare op asks the same."""

import pytest
import torch

import tokprune_kernels as tk

from .samples import cu_seqlens_of, encoder_weights, randn

LENGTHS, HIDDEN, WIDE = (4, 0, 3), 48, 70


def arguments(**changes):
    start = {
        "x": randn(sum(LENGTHS), HIDDEN),
        "cu_seqlens": cu_seqlens_of(LENGTHS),
        "max_seqlen": max(LENGTHS),
        "weights": encoder_weights(2, HIDDEN, WIDE, torch.float32),
        "eps": [1e-5] * 4,
        "heads": 3,
        "activation": "gelu",
        "scale": 0.25,
        "token_idx": torch.arange(sum(LENGTHS), dtype=torch.int32),
        "places": sum(LENGTHS),
    }
    return start | changes


def without(weights, index, replacement):
    return [*weights[:index], replacement, *weights[index + 1 :]]


def test_every_readout():
    everything = tk.ops.encoder(**arguments())
    assert everything.shape == (sum(LENGTHS), HIDDEN)
    for readout in ("first", "first_only"):
        first = tk.ops.encoder(**arguments(readout=readout, token_idx=None, places=0))
        assert torch.equal(first[[0, 2]], everything[[0, 4]])
        assert not first[1].any()


def test_pruned_tokens_keep_the_state_they_left_with():
    entry = arguments()
    half = entry["weights"][:12], entry["eps"][:2]
    after_one = tk.ops.encoder(**arguments(weights=half[0], eps=half[1]))
    pruned = tk.ops.encoder(**arguments(keep_ratios=[1.0, 0.5], before_layer=True))
    left = (pruned == after_one).all(dim=1)
    assert left.sum() == 3  # 2 of 4, and 1 of 3: ceil(1.5) stay
    by_threshold = tk.ops.encoder(**arguments(thresholds=[0.0, 2.0]))  # no score reaches 2: the first tokens alone stay
    left = (by_threshold == after_one).all(dim=1)
    assert left.tolist() == [False, True, True, True, False, True, True]


def test_ratios_past_the_first_token():
    """1 + ceil(0.3 * 3) = 2 of 4 stay and 1 + ceil(0.3 * 2) = 2 of 3; with the first counted it would be one of the 3."""
    entry = arguments()
    after_one = tk.ops.encoder(**arguments(weights=entry["weights"][:12], eps=entry["eps"][:2]))
    for count_first, left in ((False, [2, 1]), (True, [2, 2])):
        pruned = tk.ops.encoder(**arguments(keep_ratios=[1.0, 0.3], before_layer=True, count_first=count_first))
        gone = (pruned == after_one).all(dim=1)
        assert [int(gone[:4].sum()), int(gone[4:].sum())] == left and not gone[[0, 4]].any()


WEIGHTS = encoder_weights(2, HIDDEN, WIDE, torch.float32)
WRONG = {
    "activation": ({"activation": "silu"}, ValueError, "activation must be one of"),
    "readout": ({"readout": "last"}, ValueError, "readout must be one of"),
    "both": ({"thresholds": [0.1, 0.1], "keep_ratios": [1.0, 0.5]}, ValueError, "not both"),
    "ratio": ({"keep_ratios": [1.0, 1.5]}, ValueError, "keep_ratio"),
    "values": ({"thresholds": [0.1]}, ValueError, "a number a layer, 2, got 1"),
    "first layer": ({"keep_ratios": [0.5, 0.5], "before_layer": True}, ValueError, "first layer must prune nothing"),
    "heads": ({"heads": 5}, ValueError, "heads must divide the 48 columns"),
    "eps": ({"eps": [1e-5, 1e-5, -1.0, 1e-5]}, ValueError, "eps must not be negative"),
    "number of weights": ({"weights": WEIGHTS[:-1]}, ValueError, "12 tensors and 2 numbers a layer"),
    "dtype": ({"weights": without(WEIGHTS, 3, WEIGHTS[3].bfloat16())}, TypeError, r"weights\[3\] must be torch.float32"),
    "shape": ({"weights": without(WEIGHTS, 13, WEIGHTS[13][:-1])}, ValueError, r"weights\[13\] must have 144 rows"),
    "unpacked": ({"weights": without(WEIGHTS, 6, randn(WIDE, HIDDEN))}, ValueError, "pack it with pack_weight"),
    "no places": ({"token_idx": None}, ValueError, "token_idx must be given"),
    "too few places": ({"places": 6}, ValueError, "token_idx"),
    "descending": ({"token_idx": torch.arange(6, -1, -1, dtype=torch.int32)}, ValueError, "token_idx"),
    "bounds": ({"cu_seqlens": cu_seqlens_of((4, 4))}, ValueError, "cu_seqlens"),
    "longest": ({"max_seqlen": 3}, ValueError, "max_seqlen"),
    "denominators": ({"denominators": torch.zeros(3)}, ValueError, "denominators"),
    "past the first by thresholds": ({"thresholds": [0.1, 0.1], "count_first": False}, ValueError, "count_first=False"),
    "past an unprotected first": (
        {"keep_ratios": [1.0, 0.5], "count_first": False, "protect_first": False},
        ValueError,
        "leave out protect_first=False",
    ),
    "unprotected": (
        {"readout": "first", "protect_first": False, "thresholds": [0.1, 0.1]},
        ValueError,
        "only the readouts 'all'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name):
    changes, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        tk.ops.encoder(**arguments(**changes))


RAW = {
    0: randn(7, HIDDEN).double(),  # x
    1: cu_seqlens_of((4, 4)),
    2: 3,
    3: WEIGHTS[:-1],
    4: [1e-5, 1e-5, -1.0, 1e-5],
    5: 5,
    6: 4,  # activation
    7: float("nan"),
    8: [0.1],
}


@pytest.mark.parametrize("position", RAW)
def test_the_bare_op_refuses_them_too(position):
    """It never reads out of bounds, whoever calls it."""
    start = arguments()
    raw = [start[name] for name in ("x", "cu_seqlens", "max_seqlen", "weights", "eps", "heads")]
    raw += [1, 0.25, [], False, False, None, None, True, 0, start["token_idx"], start["places"]]
    torch.ops.tokprune.encoder(*raw)
    raw[position] = RAW[position]
    with pytest.raises((ValueError, TypeError)):
        torch.ops.tokprune.encoder(*raw)


@pytest.mark.parametrize("token_idx", (None, torch.tensor([0, 1, 2, 3, 4, 5, 7], dtype=torch.int32)))
def test_the_bare_op_refuses_places_out_of_range(token_idx):
    start = arguments()
    raw = [start[name] for name in ("x", "cu_seqlens", "max_seqlen", "weights", "eps", "heads")]
    with pytest.raises(ValueError, match="token_idx"):
        torch.ops.tokprune.encoder(*raw, 1, 0.25, [], False, False, None, None, True, 0, token_idx, 7)
