"""The gradients of attention and importance: what the general tests cannot see."""

import pytest
import torch

from tokprune_kernels import ops, reference

from .samples import COMPILED_ONLY, RAGGED, cu_seqlens_of, qkv, randn

DTYPES = pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=("fp32", "bf16"))
OP = torch.ops.tokprune.attn_importance_backward


def arguments(lengths, heads=3, head_dim=32, dtype=torch.float32, **changes):
    q, k, v = qkv(lengths, heads, head_dim, dtype)
    total = sum(lengths)
    named = {
        "grad_context": randn(total, heads, head_dim, dtype=dtype, seed=1),
        "grad_importance": randn(total, seed=2),
        "q": q,
        "k": k,
        "v": v,
        "cu_seqlens": cu_seqlens_of(lengths),
        "max_seqlen": max(lengths, default=0),
        "scale": 0.2,
        "key_bias": randn(total, seed=3),
        "row_weights": randn(total, seed=4).relu(),
    }
    return named | changes


def in_float64(named):
    return {name: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for name, x in named.items()}


@COMPILED_ONLY
@DTYPES
@pytest.mark.parametrize("head_dim", (32, 64, 40))
def test_batch_companions_do_not_change_a_bit(dtype, head_dim):
    lengths = (*RAGGED, 390, 200)
    together = arguments(lengths, 4, head_dim, dtype)
    results, start = OP(**together), 0
    for length in lengths:
        rows = slice(start, start + length)
        own = {name: x[rows] for name, x in together.items() if isinstance(x, torch.Tensor) and name != "cu_seqlens"}
        alone = OP(**together | own | {"cu_seqlens": cu_seqlens_of([length]), "max_seqlen": length})
        for a, b in zip(alone, results, strict=True):
            assert torch.equal(a, b[rows]), f"length {length}"
        start += length


@DTYPES
def test_a_long_sequence_beside_short_ones_is_accurate(dtype):
    """Many blocks of query rows, whose sums go to the same keys."""
    named = arguments((3, 1500, 0, 1), 2, 32, dtype)
    tolerance = 2e-5 if dtype == torch.float32 else 1.6e-2
    for a, e in zip(OP(**named), reference.attn_importance_backward(**in_float64(named)), strict=True):
        assert (a.double() - e).abs().max() <= tolerance * e.abs().max()


@COMPILED_ONLY
def test_what_is_left_out_is_zeros_and_ones():
    named = arguments(RAGGED)
    total = sum(RAGGED)
    given = OP(**named | {"key_bias": torch.zeros(total), "row_weights": torch.ones(total)})
    for a, b in zip(OP(**named | {"key_bias": None, "row_weights": None}), given, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_sums_that_must_vanish():
    """A shift of all scores of a row changes nothing: a sequence's bias gradients sum to 0; a lone token's are 0 themselves."""
    grads = OP(**arguments(RAGGED))
    for part, length in zip(grads[3].split(RAGGED), RAGGED, strict=True):
        assert abs(float(part.sum())) <= 1e-5 * max(length, 1)
    alone = RAGGED.index(1)
    row = sum(RAGGED[:alone])
    assert grads[0][row].abs().max() <= 1e-6 and grads[1][row].abs().max() <= 1e-6 and abs(float(grads[3][row])) <= 1e-6


def test_very_biased_keys_are_left_out():
    """exp(bias) -> 0 is removal: the other tokens' gradients are those of a batch without the biased keys."""
    named = arguments((9,), row_weights=(torch.arange(9) % 3 != 1).float(), key_bias=torch.where(torch.arange(9) % 3 == 1, -1e4, 0.0))
    kept = named["row_weights"].bool()
    named["grad_context"] = named["grad_context"] * kept[:, None, None]  # removed rows have no loss of their own
    denominators = torch.tensor([6.0])
    few = {name: x[kept] for name, x in named.items() if isinstance(x, torch.Tensor) and name != "cu_seqlens"}
    few |= {"key_bias": None, "row_weights": None, "cu_seqlens": cu_seqlens_of([6])}
    soft, hard = OP(**named, denominators=denominators), OP(**named | few, denominators=denominators)
    for a, b in zip(soft[:3], hard[:3], strict=True):
        torch.testing.assert_close(a[kept], b, rtol=1e-5, atol=1e-6)
        assert not a[~kept].any()


def test_nan_stays_in_its_sequence_and_head():
    named = arguments([20, 20])
    named["grad_context"] = named["grad_context"].index_put((torch.tensor(3), torch.tensor(1)), torch.tensor(float("nan")))
    grads = OP(**named)
    for grad in grads[:3]:
        assert grad[:20, 1].isnan().any() and grad[:, 0].isfinite().all() and grad[20:].isfinite().all()
    assert grads[3][:20].isnan().all() and grads[3][20:].isfinite().all()


def test_autograd_runs_the_op_on_strided_views():
    """Through the public function, with gradients of a fused QKV and of one output only."""
    fused = torch.randn(40, 3, 2, 16, requires_grad=True)
    for loss in (lambda c, s: c.sum(), lambda c, s: s[::2].sum(), lambda c, s: c.sum() + s.square().sum()):
        wide = fused.detach().double().requires_grad_()
        actual = torch.autograd.grad(loss(*ops.attn_importance(*fused.unbind(1), cu_seqlens_of([30, 10]), 30, 0.3)), fused)[0]
        expected = torch.autograd.grad(loss(*reference.attn_importance(*wide.unbind(1), cu_seqlens_of([30, 10]), 30, 0.3)), wide)[0]
        torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-6)


BAD = {
    "q dtype": ({"q": torch.zeros(10, 3, 32, dtype=torch.int64)}, "q"),
    "k shape": ({"k": torch.zeros(10, 3, 40)}, "k"),
    "v rows": ({"v": torch.zeros(9, 3, 32)}, "v"),
    "grad_context dtype": ({"grad_context": torch.zeros(10, 3, 32, dtype=torch.bfloat16)}, "grad_context"),
    "grad_context shape": ({"grad_context": torch.zeros(10, 96)}, "grad_context"),
    "grad_importance dtype": ({"grad_importance": torch.zeros(10, dtype=torch.bfloat16)}, "grad_importance"),
    "grad_importance rows": ({"grad_importance": torch.zeros(9)}, "grad_importance"),
    "key_bias rows": ({"key_bias": torch.zeros(11)}, "key_bias"),
    "key_bias dims": ({"key_bias": torch.zeros(10, 3)}, "key_bias"),
    "row_weights dtype": ({"row_weights": torch.zeros(10, dtype=torch.int32)}, "row_weights"),
    "cu_seqlens end": ({"cu_seqlens": torch.tensor([0, 4, 9], dtype=torch.int32)}, "cu_seqlens"),
    "max_seqlen": ({"max_seqlen": 5}, "max_seqlen"),
    "scale": ({"scale": float("nan")}, "scale"),
    "denominators size": ({"denominators": torch.ones(3)}, "denominators"),
    "denominators zero": ({"denominators": torch.zeros(2)}, "denominators"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_names_the_argument(case):
    changes, name = BAD[case]
    with pytest.raises((ValueError, TypeError), match=name):
        OP(**arguments([4, 6], **changes))


@COMPILED_ONLY
@pytest.mark.parametrize("head_dim", (4, 12, 264))
def test_head_dims_without_a_kernel_are_refused(head_dim):
    with pytest.raises(ValueError, match="head_dim"):
        OP(**arguments([4], 2, head_dim))
