"""Numbers far from those of a model, on every ISA: large scores, scales that are not positive, the tails of the activations."""

import pytest
import torch

core = pytest.importorskip("tokprune_kernels._core", reason="the compiled module is not built")

from tests.kernels.test_isa import EVERY_DTYPE, EVERY_ISA, assert_near, from_numpy, to_numpy  # noqa: E402
from tests.ops.samples import cu_seqlens_of, qkv  # noqa: E402
from tokprune_kernels import reference  # noqa: E402

LENGTHS = (1, 7, 33, 70)


def assert_attention(q, k, v, scale, isa, **weights):
    cu_seqlens = cu_seqlens_of(LENGTHS)
    wide = {name: x.double() for name, x in weights.items()}
    expected = reference.attn_importance(q.double(), k.double(), v.double(), cu_seqlens, 70, scale, **wide)
    given = {name: to_numpy(x) for name, x in weights.items()}
    context, importance = core.attn_importance(*map(to_numpy, (q, k, v, cu_seqlens)), scale, **given, isa=isa)
    assert_near(from_numpy(context, v.dtype), expected[0], 5e-6 if v.dtype == torch.float32 else 1.6e-2, f"{scale}")
    assert_near(from_numpy(importance, torch.float32), expected[1], 5e-6, f"{scale}")


@EVERY_ISA
@EVERY_DTYPE
@pytest.mark.parametrize("bias", (False, True), ids=("plain", "key_bias"))
@pytest.mark.parametrize("size", (2.0**7, 2.0**14, 2.0**17, 2.0**30, 2.0**60))
def test_scores_of_any_size(size, bias, dtype, isa):
    """The differences that count are found whatever the scores are, and nothing becomes infinite."""
    q, k, v = (x.clone() for x in qkv(LENGTHS, 2, 16))
    q, k = q.sign() * size, k.mul(2).round().sign() * size  # many equal scores, none of them rounded
    weights = {"key_bias": torch.full((len(q),), 7.0)} if bias else {}
    assert_attention(q.to(dtype), k.to(dtype), v.to(dtype), 0.3, isa, **weights)


@EVERY_ISA
@EVERY_DTYPE
@pytest.mark.parametrize("scale", (-0.3, -5.0, -30.0, -1e9, 0.0))
def test_scales_that_are_not_positive(scale, dtype, isa):
    q, k, v = qkv(LENGTHS, 2, 16)
    q, k = q.sign(), k.mul(4).round().div(4)
    assert_attention(q.to(dtype), k.to(dtype), v.to(dtype), scale, isa)


ACTIVATIONS = {"gelu": 1, "gelu_tanh": 2, "relu": 3}


def activated(x, name, isa):
    one = torch.ones(1, 1, dtype=x.dtype)
    return from_numpy(core.linear(to_numpy(x[:, None]), to_numpy(one), activation=ACTIVATIONS[name], isa=isa), x.dtype).flatten()


@EVERY_ISA
@EVERY_DTYPE
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_tails_of_an_activation_are_exact(name, dtype, isa):
    """0 far below, the number itself far above, up to the last one that is finite."""
    far = torch.cat([torch.linspace(11, 60, 5000), torch.logspace(1.1, 38, 5000), torch.tensor([3.0e38])]).to(dtype)
    assert not activated(-far, name, isa).any()
    assert torch.equal(activated(far, name, isa), far.double())


@EVERY_ISA
@pytest.mark.parametrize("name", ("gelu", "gelu_tanh"))
def test_an_activation_is_accurate_everywhere(name, isa):
    x = torch.linspace(-12, 12, 200_001)
    expected = torch.nn.functional.gelu(x.double(), approximate="tanh" if name == "gelu_tanh" else "none")
    assert float(((activated(x, name, isa) - expected).abs() / x.double().abs().clamp_min(1.0)).max()) < 4e-7
