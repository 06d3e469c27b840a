"""Attention, its importance and its gradients against the float64 reference, on every ISA and number of threads."""

import pytest
import torch

from .budget import fuzzed  # isort: skip  (skips the module where hypothesis is missing)
from hypothesis import strategies as st

core = pytest.importorskip("tokprune_kernels._core", reason="the compiled module is not built")

from tokprune_kernels import ops, reference  # noqa: E402

from .drawing import DTYPES, KINDS, NOT_FINITE, NUMPY_PLACES, SEEDS, SHAPES, TORCH_PLACES, as_numpy, assert_within, bounds_of, numbers  # noqa: E402

SCALES = st.one_of(st.sampled_from((0.125, -0.125, 0.0, 1.0, -4.0, -30.0)), st.floats(-2, 2))
OPTIONS = st.sets(st.sampled_from(("denominators", "key_bias", "row_weights")))
# A relative error of the scores beyond which nothing is asked of the softmax but that it be finite.
BLURRED = 0.02


def options_of(names, total, sequences, seed):
    generator = torch.Generator().manual_seed(seed + 1)
    every = {
        "denominators": torch.rand(sequences, generator=generator) * 50 + 0.5,
        "key_bias": torch.randn(total, generator=generator) * 3,
        "row_weights": torch.rand(total, generator=generator),
    }
    return {name: every[name] for name in names}


def blur(q, k, scale, options):
    """By how much a score may be off, as a factor of its exponential, in float32."""
    if not q.numel():
        return 0.0
    largest = float(q.nan_to_num(0, 0, 0).abs().max()) * float(k.nan_to_num(0, 0, 0).abs().max()) * q.shape[2]
    return 2e-7 * (abs(scale) * largest + (20 if "key_bias" in options else 0))


@fuzzed(SHAPES, DTYPES, KINDS, KINDS, SCALES, OPTIONS, NUMPY_PLACES, st.sampled_from(core.available_isas()), SEEDS)
def test_attention_of_every_isa(shape, dtype, kind, value_kind, scale, names, place, isa, seed):
    total = sum(shape.lengths)
    q, k = (numbers((total, shape.heads, shape.head_dim), kind, seed + n, dtype) for n in range(2))
    v, bounds = numbers(q.shape, value_kind, seed + 2, dtype), bounds_of(shape.lengths)
    options = options_of(names, total, len(shape.lengths), seed)
    wide = {name: x.double() for name, x in options.items()}
    expected = reference.attn_importance(q.double(), k.double(), v.double(), bounds, 0, scale, **wide)
    arguments = [place(as_numpy(x)) for x in (q, k, v)]
    given = {name: place(as_numpy(x)) for name, x in options.items()}
    results = [core.attn_importance(*arguments, as_numpy(bounds), scale, **given, isa=isa, threads=n) for n in (1, 3)]
    for one, three in zip(*results, strict=True):
        assert one.tobytes() == three.tobytes(), "threads changed the bits"
    context, importance = (torch.from_numpy(x) for x in results[0])
    loose = blur(q, k, scale, names)
    if loose > BLURRED:
        assert kind in NOT_FINITE or value_kind in NOT_FINITE or bool(importance.isfinite().all())
        return
    largest = float(v.nan_to_num(0, 0, 0).double().abs().max()) if total else 0.0
    rounding = 3e-6 if dtype == torch.float32 else 1.6e-2
    assert_within(context.view(dtype), expected[0], (rounding + 3 * loose) * largest + 1e-37, "context")
    assert_within(importance, expected[1], (3e-6 + 3 * loose) * float(expected[1].nan_to_num().max()) if total else 0.0, "importance")


@fuzzed(SHAPES, DTYPES, st.sampled_from(("normal", "ties", "tiny", "zero")), SCALES, OPTIONS, TORCH_PLACES, SEEDS)
def test_gradients_of_attention(shape, dtype, kind, scale, names, place, seed):
    total = sum(shape.lengths)
    q, k, v, grad = (numbers((total, shape.heads, shape.head_dim), kind, seed + n, dtype) for n in range(4))
    grad_importance, bounds = numbers((total,), kind, seed + 4), bounds_of(shape.lengths)
    options = options_of(names, total, len(shape.lengths), seed)
    loose = blur(q, k, scale, names)
    if loose > BLURRED:
        return
    wide = {name: x.double() for name, x in options.items()}
    expected = reference.attn_importance_backward(
        grad.double(), grad_importance.double(), q.double(), k.double(), v.double(), bounds, 0, scale, **wide
    )
    heads = [x.contiguous() for x in (q, k, v)]
    longest = max(shape.lengths, default=0)
    actual = torch.ops.tokprune.attn_importance_backward(place(grad), grad_importance, *heads, bounds, longest, scale, **options)
    if not total:
        return
    # Differences of sums over a sequence, each term as large as these.
    size = {name: float(x.double().abs().max()) for name, x in {"q": q, "k": k, "v": v, "g": grad, "s": grad_importance}.items()}
    terms = size["g"] * size["v"] * shape.head_dim + size["s"]
    sizes = (abs(scale) * terms * size["k"], abs(scale) * terms * size["q"] * total, size["g"] * total, terms * total, size["s"])
    for number, (a, e, largest) in enumerate(zip(actual, expected, sizes, strict=True)):
        rounding = 2e-6 if a.dtype == torch.float32 else 1.2e-2
        assert_within(a, e, (rounding + 4 * loose) * largest + 1e-37, f"gradient {number}")


@fuzzed(SHAPES, DTYPES, SCALES, TORCH_PLACES, SEEDS)
def test_other_sequences_do_not_change_a_bit(shape, dtype, scale, place, seed):
    total, longest = sum(shape.lengths), max(shape.lengths, default=0)
    q, k, v = (place(numbers((total, shape.heads, shape.head_dim), "normal", seed + n, dtype)) for n in range(3))
    together = ops.attn_importance(q, k, v, bounds_of(shape.lengths), longest, scale)
    start = 0
    for length in shape.lengths:
        rows = slice(start, start + length)
        alone = ops.attn_importance(q[rows], k[rows], v[rows], bounds_of([length]), length, scale)
        assert all(torch.equal(a, b[rows]) for a, b in zip(alone, together, strict=True))
        start += length
