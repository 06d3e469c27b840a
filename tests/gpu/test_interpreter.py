"""Every GPU kernel against the float64 reference, in triton's interpreter, on ragged batches."""

import pytest

from tokprune_kernels.ops.registration import GPU_MODULES

from .conftest import DTYPES


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*GPU_MODULES, "encoder"])
def test_matches_the_float64_reference(interpreted, name, dtype):
    rows = interpreted[dtype][name]
    assert rows
    wrong = [f"[{sample}] output {number}: {error:.3g}" for sample, number, error, tolerance in rows if not error <= tolerance]
    assert not wrong
