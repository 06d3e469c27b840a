"""FLOPs against counts made by hand."""

from types import SimpleNamespace

import pytest
import torch

from tokprune_kernels import PruningConfig, flops

SMALL = SimpleNamespace(hidden_size=10, intermediate_size=30, num_hidden_layers=2)
KEPT = torch.tensor([[4, 8], [2, 8], [1, 6]])


def layer(n, m, d=10, f=30):
    """Products of matrices, one after another: QKV, scores, context, output projection, feed-forward."""
    macs = 3 * n * d * d + n * n * d + n * n * d + m * d * d + m * d * f + m * f * d
    return 2 * macs


def test_after_attention():
    expected = [layer(4, 2) + layer(2, 1), layer(8, 8) + layer(8, 6)]
    out = flops.encoder_flops(KEPT, SMALL)
    assert out.dtype == torch.float64 and out.tolist() == expected
    assert flops.encoder_flops(KEPT, SMALL, position="after_attention").tolist() == expected


def test_before_layer():
    expected = [layer(4, 4) + layer(2, 2), layer(8, 8) + layer(8, 8)]
    assert flops.encoder_flops(KEPT, SMALL, position="before_layer").tolist() == expected


@pytest.mark.parametrize("position", ["after_attention", "before_layer"])
def test_expected_lengths(position):
    """In training lengths are expectations: fractions count as they are, and gradients reach them."""
    kept = torch.tensor([[4.5], [2.25], [1.5]], dtype=torch.float64, requires_grad=True)
    finished = (2.25, 1.5) if position == "after_attention" else (4.5, 2.25)
    out = flops.encoder_flops(kept, SMALL, position=position)
    assert out.item() == pytest.approx(layer(4.5, finished[0]) + layer(2.25, finished[1]))
    for exact in (False, True):
        options = {"position": position, "exact_last_layer": exact}
        assert torch.autograd.gradcheck(lambda n: flops.encoder_flops(n, SMALL, **options), kept)


@pytest.mark.parametrize("as_dict", [True, False])
def test_position_of_the_configuration(as_dict):
    pruning = PruningConfig.top([1.0, 0.5])
    config = SimpleNamespace(**vars(SMALL), pruning=pruning.to_dict() if as_dict else pruning)
    assert torch.equal(flops.encoder_flops(KEPT, config), flops.encoder_flops(KEPT, SMALL, position="before_layer"))
    explicit = flops.encoder_flops(KEPT, config, position="after_attention")
    assert torch.equal(explicit, flops.encoder_flops(KEPT, SMALL))
    config.pruning = None
    assert torch.equal(flops.encoder_flops(KEPT, config), explicit)


def test_dense_is_kept_all():
    lengths = torch.tensor([3, 0, 7])
    dense = flops.dense_flops(lengths, SMALL)
    assert torch.equal(dense, flops.encoder_flops(lengths.expand(3, -1), SMALL))
    assert dense[1] == 0


def test_padded_baselines():
    lengths = torch.tensor([3, 7])
    assert flops.dense_flops(lengths, SMALL, padded_to="longest").tolist() == [2 * layer(7, 7)] * 2
    assert flops.dense_flops(lengths, SMALL, padded_to=128).tolist() == [2 * layer(128, 128)] * 2
    assert flops.dense_flops(lengths[:0], SMALL, padded_to="longest").shape == (0,)


def test_ltp_formula_for_bert_base():
    """With f = 4 d and nothing pruned, per layer 2 d n^2 + 12 d^2 n MACs, as LTP counts."""
    base = SimpleNamespace(hidden_size=768, intermediate_size=3072, num_hidden_layers=12)
    n = 128
    assert flops.dense_flops(torch.tensor([n]), base).item() == 2 * 12 * (2 * 768 * n**2 + 12 * 768**2 * n)


BAD = {
    "rows": (ValueError, "kept_lengths", lambda: flops.encoder_flops(KEPT[:2], SMALL)),
    "no tensor": (TypeError, "kept_lengths", lambda: flops.encoder_flops(KEPT.tolist(), SMALL)),
    "position": (ValueError, "position", lambda: flops.encoder_flops(KEPT, SMALL, position="after_layer")),
    "lengths": (ValueError, "lengths", lambda: flops.dense_flops(KEPT, SMALL)),
    "too short": (ValueError, "padded_to", lambda: flops.dense_flops(torch.tensor([9]), SMALL, padded_to=8)),
    "unknown": (ValueError, "padded_to", lambda: flops.dense_flops(torch.tensor([9]), SMALL, padded_to="widest")),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case):
    error, match, call = BAD[case]
    with pytest.raises(error, match=match):
        call()


def test_exact_last_layer():
    """Keys and values of all n tokens; query, scores, context, output projection and feed-forward of one."""
    d, f, n = 10, 30, 8
    last = 2 * (2 * n * d * d + d * d + 2 * n * d + d * d + 2 * d * f)
    dense = torch.tensor([n, 0]).expand(3, -1)
    assert flops.encoder_flops(dense, SMALL, exact_last_layer=True).tolist() == [layer(n, n) + last, 0]
