"""What holds for every op: it matches the float64 reference, gives the same bits on any number of threads, passes opcheck."""

import copy

import pytest
import torch

import tokprune_kernels.ops  # noqa: F401  (defines torch.ops.tokprune)
from tokprune_kernels import reference
from tokprune_kernels.ops import schemas

from .samples import COMPILED_ONLY, GENERATORS

DTYPES = (torch.float32, torch.bfloat16)
EVERY_OP = pytest.mark.parametrize("name", sorted(GENERATORS))
EVERY_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=("fp32", "bf16"))


def tensors_of(result):
    return [result] if isinstance(result, torch.Tensor) else list(result or ())


def call(function, sample, convert=lambda x: x):
    """The op's results, and the tensor that it changed in place, if it is such an op."""
    args, kwargs = torch.utils._pytree.tree_map(convert, copy.deepcopy((sample.args, sample.kwargs)))
    results = tensors_of(function(*args, **kwargs))
    return results or [args[0]]


def to_float64(x):
    return x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x


def to_float32(x):
    return x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x


# Decisions compare float32 scores, which another precision may move across a threshold (or, of an encoder, every rounding before them); the layout of a packed weight
# depends on its dtype.
REFERENCE_INPUT = {
    "keep_threshold": to_float32,
    "keep_topk": to_float32,
    "prune_attention": to_float32,
    "pack_weight": lambda x: x,
    "encoder": lambda x: x,
    "padded_encoder": lambda x: x,
}


def assert_close(actual, expected, tolerance, context):
    assert actual.shape == expected.shape, context
    if not actual.is_floating_point():
        assert torch.equal(actual, expected), context
    elif actual.numel():
        limit = tolerance * float(expected.abs().max())
        error = float((actual.double() - expected.double()).abs().max())
        assert error <= limit, f"{context}: error {error:.3g} exceeds {limit:.3g}"


def test_every_op_has_samples():
    assert sorted(schemas.NAMES) == sorted(GENERATORS)


@EVERY_OP
@EVERY_DTYPE
def test_matches_the_float64_reference(name, dtype):
    for sample in GENERATORS[name](dtype):
        expected = call(getattr(reference, name), sample, REFERENCE_INPUT.get(name, to_float64))
        actual = call(getattr(torch.ops.tokprune, name), sample)
        assert len(actual) == len(expected)
        for number, (a, e) in enumerate(zip(actual, expected, strict=True)):
            assert_close(a, e, sample.tolerance, f"{name} [{sample.name}] output {number}")


@COMPILED_ONLY
@EVERY_OP
@EVERY_DTYPE
def test_same_bits_on_any_number_of_threads(name, dtype):
    before = torch.get_num_threads()
    try:
        for sample in GENERATORS[name](dtype):
            results = []
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                results.append(call(getattr(torch.ops.tokprune, name), sample))
            for other in results[1:]:
                for a, b in zip(results[0], other, strict=True):
                    assert torch.equal(a, b), f"{name} [{sample.name}]"
    finally:
        torch.set_num_threads(before)


@EVERY_OP
@EVERY_DTYPE
def test_opcheck(name, dtype):
    op = getattr(torch.ops.tokprune, name).default
    for sample in list(GENERATORS[name](dtype))[:4]:
        # opcheck cannot copy an empty view of a larger tensor.
        args = torch.utils._pytree.tree_map_only(
            torch.Tensor, lambda x: x if x.numel() else x.new_empty(x.shape), sample.args
        )
        torch.library.opcheck(op, args, sample.kwargs)
