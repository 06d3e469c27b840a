"""Linear layers on packed weights and LayerNorm: bits of a row, accuracy of the activations, refusals."""

import math

import pytest
import torch

from tokprune_kernels import ops

from .samples import COMPILED_ONLY, randn


@COMPILED_ONLY
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=("fp32", "bf16"))
def test_other_rows_do_not_change_a_bit(dtype):
    x, weight, bias = randn(205, 300, dtype=dtype), randn(130, 300, dtype=dtype), randn(130, dtype=dtype)
    packed = ops.pack_weight(weight)
    together = ops.packed_linear(x, packed, bias, 130, "gelu")
    for row in (0, 1, 95, 96, 204):
        assert torch.equal(ops.packed_linear(x[row : row + 1], packed, bias, 130, "gelu")[0], together[row])
    some = torch.tensor([204, 7, 7, 96], dtype=torch.int32)
    assert torch.equal(ops.packed_linear(x, packed, bias, 130, "gelu", some), together[some])


@pytest.mark.parametrize("name", ("gelu", "gelu_tanh", "relu"))
def test_activation_is_accurate_over_the_whole_line(name):
    x = torch.cat([torch.linspace(-12, 12, 100_001), torch.tensor([-1e30, -100.0, -0.0, 0.0, 100.0, 1e30])])
    identity = ops.pack_weight(torch.ones(1, 1))
    actual = ops.packed_linear(x.unsqueeze(1), identity, None, 1, name).flatten().double()
    functions = {
        "gelu": torch.nn.functional.gelu,
        "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        "relu": torch.relu,
    }
    expected = functions[name](x.double())
    error = (actual - expected).abs() / x.double().abs().clamp_min(1.0)
    assert float(error.max()) < 4e-7


def test_nan_passes_through_every_activation():
    identity = ops.pack_weight(torch.ones(1, 1))
    for name in ("none", "gelu", "gelu_tanh", "relu"):
        assert math.isnan(ops.packed_linear(torch.tensor([[float("nan")]]), identity, None, 1, name).item())


def test_layer_norm_of_large_offsets_is_as_good_as_torch():
    x = randn(20, 384) + 1000
    expected = torch.nn.functional.layer_norm(x.double(), (384,))
    actual = ops.add_layer_norm(x, torch.zeros_like(x), torch.ones(384), torch.zeros(384), 1e-12)
    own = float((torch.nn.functional.layer_norm(x, (384,)).double() - expected).abs().max())
    assert float((actual.double() - expected).abs().max()) <= 2 * own + 1e-6


def test_layer_norm_of_constant_rows_is_the_bias():
    for value in (0.0, 1e-20, 0.1, 1000.1, 1e6, 3e15):
        x, bias = torch.full((2, 100), value), randn(100)
        actual = ops.add_layer_norm(x, torch.zeros_like(x), torch.ones(100), bias, 1e-12)
        torch.testing.assert_close(actual, bias.expand(2, 100), rtol=0, atol=2.0)
        assert actual.isfinite().all()


PACKED = torch.zeros(2, 8, 64)
BAD = {
    "x dtype": (lambda: ops.packed_linear(torch.zeros(3, 8, dtype=torch.int32), PACKED, None, 70), "x"),
    "weight unpacked": (lambda: ops.packed_linear(randn(3, 8), randn(70, 8), None, 70), "weight"),
    "weight of other size": (lambda: ops.packed_linear(randn(3, 9), PACKED, None, 70), "weight"),
    "out_features": (lambda: ops.packed_linear(randn(3, 8), PACKED, None, 129), "out_features"),
    "bias size": (lambda: ops.packed_linear(randn(3, 8), PACKED, randn(64), 70), "bias"),
    "activation": (lambda: ops.packed_linear(randn(3, 8), PACKED, None, 70, "swish"), "activation"),
    "rows outside": (lambda: ops.packed_linear(randn(3, 8), PACKED, None, 70, "none", torch.tensor([3], dtype=torch.int32)), "rows"),
    "pack dims": (lambda: ops.pack_weight(randn(8)), "weight"),
    "norm residual": (lambda: ops.add_layer_norm(randn(3, 8), randn(2, 8), randn(8), randn(8), 1e-5), "residual"),
    "norm weight": (lambda: ops.add_layer_norm(randn(3, 8), randn(3, 8), randn(9), randn(8), 1e-5), "weight"),
    "norm eps": (lambda: ops.add_layer_norm(randn(3, 8), randn(3, 8), randn(8), randn(8), -1.0), "eps"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_names_the_argument(case):
    call, name = BAD[case]
    with pytest.raises((ValueError, TypeError), match=name):
        call()
