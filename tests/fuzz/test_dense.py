"""Linear layers and LayerNorm against the float64 reference, on every ISA and number of threads."""

import pytest
import torch

from .budget import fuzzed  # isort: skip  (skips the module where hypothesis is missing)
from hypothesis import strategies as st

core = pytest.importorskip("tokprune_kernels._core", reason="the compiled module is not built")

from tokprune_kernels.reference.linear import FUNCTIONS  # noqa: E402

from .drawing import DTYPES, KINDS, NUMPY_PLACES, SEEDS, as_numpy, assert_within, numbers  # noqa: E402

ISAS = st.sampled_from(core.available_isas())
SIZES = st.one_of(st.sampled_from((0, 1, 2, 15, 16, 17, 63, 64, 65, 128, 145)), st.integers(0, 200))
WIDTHS = st.one_of(SIZES, st.sampled_from((257, 769, 1537)))


def same_on_threads(call):
    results = [call(threads) for threads in (1, 3)]
    assert results[0].tobytes() == results[1].tobytes(), "threads changed the bits"
    return torch.from_numpy(results[0])


@fuzzed(SIZES, WIDTHS, SIZES, DTYPES, KINDS, KINDS, st.integers(0, 3), st.booleans(), st.booleans(), NUMPY_PLACES, ISAS, SEEDS)
def test_linear(rows, inner, outer, dtype, kind, weight_kind, activation, with_bias, with_rows, place, isa, seed):
    x, weight = numbers((rows, inner), kind, seed, dtype), numbers((outer, inner), weight_kind, seed + 1, dtype)
    bias = numbers((outer,), kind, seed + 2, dtype)
    index = torch.randint(0, max(rows, 1), (rows // 2,), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
    given = {"bias": place(as_numpy(bias))} if with_bias else {}
    given |= {"rows": place(as_numpy(index))} if with_rows else {}
    arrays = place(as_numpy(x)), place(as_numpy(weight))
    actual = same_on_threads(lambda n: core.linear(*arrays, activation=activation, isa=isa, threads=n, **given)).view(dtype)
    chosen, wide_bias = (x[index.long()] if with_rows else x).double(), bias.double() if with_bias else torch.zeros(outer).double()
    y = chosen @ weight.double().T + wide_bias
    expected, terms = FUNCTIONS[activation](y), chosen.abs() @ weight.double().abs().T + wide_bias.abs()
    # An activation turns what is not finite into a number, or not, as its sums were infinite or no number.
    usual = y.isfinite()
    limit = 4e-7 * (inner**0.5 + 4) * terms + (0 if dtype == torch.float32 else 2**-8 * expected.abs()) + 1e-30
    assert_within(torch.where(usual, actual.double(), 0.0), torch.where(usual, expected, 0.0), limit.nan_to_num(), "linear")
    assert bool(actual[y.isnan()].isnan().all())


@fuzzed(SIZES, WIDTHS.filter(bool), DTYPES, KINDS, st.sampled_from((0.0, 1e-12, 1e-5, 1.0)), NUMPY_PLACES, ISAS, SEEDS)
def test_add_layer_norm(rows, width, dtype, kind, eps, place, isa, seed):
    x, residual = (numbers((rows, width), kind, seed + n, dtype) for n in range(2))
    weight, bias = (numbers((width,), "normal", seed + n, dtype) for n in (2, 3))
    arrays = [place(as_numpy(t)) for t in (x, residual, weight, bias)]
    actual = same_on_threads(lambda n: core.add_layer_norm(*arrays, eps, isa=isa, threads=n)).view(dtype)
    total = x.double() + residual.double()
    deviation = total - total.mean(dim=1, keepdim=True)
    spread = (deviation.square().mean(dim=1, keepdim=True) + eps).sqrt()
    rounding = 1e-6 * total.abs().amax(dim=1, keepdim=True) / spread
    # Where rows are equal but for rounding, or squares are no float32: only that a row without NaN gives numbers.
    clear = ((rounding < 1e-2) & (spread > 1e-17)).expand_as(total) & total.isfinite().all(dim=1, keepdim=True)
    expected = deviation / spread * weight.double() + bias.double()
    limit = (rounding + 4e-6 * (deviation / spread).abs()) * weight.double().abs() + 1e-6 * bias.double().abs()
    limit = limit + (0 if dtype == torch.float32 else 2**-8 * expected.abs())
    assert_within(torch.where(clear, actual.double(), 0.0), torch.where(clear, expected, 0.0), limit.nan_to_num(), "norm")
    assert bool(actual[~total.isfinite().all(dim=1)].isnan().all())
