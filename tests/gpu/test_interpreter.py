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


def test_models_without_a_sync(interpreted):
    """The path of a CUDA graph, launch for launch, with every rule, left padding, empty texts and no mask."""
    rows = interpreted["float32"]["models"]
    assert len(rows) >= 36
    assert not [row for row in rows if not row[2] <= row[3]]
