"""Decisions and the movement of rows: exactly the reference's. And arguments that lie: refused, never followed."""

import pytest
import torch

from .budget import fuzzed  # isort: skip  (skips the module where hypothesis is missing)
from hypothesis import strategies as st

core = pytest.importorskip("tokprune_kernels._core", reason="the compiled module is not built")

from tokprune_kernels import ops, reference  # noqa: E402

from .drawing import KINDS, LENGTHS, NUMPY_PLACES, SEEDS, TORCH_PLACES, as_numpy, bounds_of, numbers  # noqa: E402

MASKS = st.sampled_from((torch.bool, torch.uint8, torch.int32, torch.int64, torch.float32))
ROWS = st.sampled_from(((), (1,), (5,), (3, 4), (0,), (2, 1, 3)))
DTYPES = st.sampled_from((torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.float64))
INT32 = st.one_of(st.integers(-3, 60), st.sampled_from((2**31 - 1, -(2**31), 2**30)))


@fuzzed(LENGTHS, KINDS, st.floats(-3, 3), st.floats(1e-3, 1), st.booleans(), st.booleans(), st.booleans(), NUMPY_PLACES, SEEDS)
def test_decisions(lengths, kind, threshold, ratio, topk, first, fixed, place, seed):
    total, bounds = sum(lengths), bounds_of(lengths)
    importance = numbers((total,), kind, seed)
    if kind == "normal" and total:  # scores that lie one step apart, on both sides of the threshold
        steps = torch.randint(-3, 4, (total,), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
        importance = (torch.tensor(threshold or 1.0).view(torch.int32) + steps).view(torch.float32)
        threshold = threshold or 1.0
    protected = numbers((total,), "normal", seed + 1) > 1.5
    name, value = ("keep_topk", ratio) if topk else ("keep_threshold", threshold)
    threshold_of_kernels = value if topk else float(torch.tensor(value))
    options = {"protected": protected if fixed else None, "protect_first": first}
    expected = getattr(reference, name)(importance, bounds, threshold_of_kernels, **options)
    actual = getattr(ops, name)(importance, bounds, value, **options)
    given = {"protected": place(as_numpy(protected)) if fixed else None, "protect_first": first}
    numpy = getattr(core, name)(place(as_numpy(importance)), place(as_numpy(bounds)), value, **given)
    for e, a, n in zip(expected, actual, numpy, strict=True):
        assert torch.equal(a, e) and n.tolist() == e.tolist()


@fuzzed(st.integers(0, 6), st.integers(0, 70), MASKS, ROWS, DTYPES, TORCH_PLACES, st.integers(0, 40), SEEDS)
def test_movement_of_rows(batch, length, mask_dtype, row, dtype, place, count, seed):
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(batch, length, generator=generator) < 0.6).to(mask_dtype)
    x = torch.randint(0, 2, (batch, length, *row), generator=generator).to(dtype)
    packed, bounds, token_idx = ops.pack(place(x), place(mask))
    for a, e in zip((packed, bounds, token_idx), reference.pack(x, mask), strict=True):
        assert torch.equal(a, e)
    assert torch.equal(ops.unpack(place(packed), token_idx, batch, length), reference.unpack(packed, token_idx, batch, length))
    rows = len(token_idx)
    keep = torch.randint(0, max(rows, 1), (count if rows else 0,), generator=generator, dtype=torch.int32)
    for a, e in zip(ops.compact_many([place(packed), token_idx], keep, len(keep)), (packed[keep], token_idx[keep]), strict=True):
        assert torch.equal(a, e)
    flat = packed.reshape(rows, -1) if packed.numel() else packed.new_zeros(rows, 3)
    stay = keep.unique()
    outs = [flat.new_zeros(batch * length, flat.shape[1]) for _ in range(2)]
    ops.store_exits_(outs[0], place(flat), token_idx, stay)
    reference.store_exits_(outs[1], flat, token_idx, stay)
    assert torch.equal(*outs)


@fuzzed(st.lists(INT32, max_size=6), st.integers(0, 50), st.integers(-2, 60), st.booleans(), SEEDS)
def test_bounds_and_indices_that_lie(numbers_given, total, other, raw, seed):
    """Refused by ValueError or TypeError, or what they say holds; the process lives."""
    index = torch.tensor(numbers_given, dtype=torch.int32)
    x, q = torch.zeros(total, 4), torch.zeros(total, 1, 8)
    use = torch.ops.tokprune if raw else ops
    rising, inside = bool((index.diff() > 0).all()), bool(((index >= 0) & (index < total)).all())
    bounds = len(index) > 0 and index[0] == 0 and index[-1] == total and bool((index.diff() >= 0).all())
    longest = int(index.diff().max()) if bounds and len(index) > 1 else 0
    calls = {
        "compact": (lambda: use.compact(x, index, other), 0 <= other <= len(index) and bool(((index[: max(other, 0)] >= 0) & (index[: max(other, 0)] < total)).all())),
        "unpack": (lambda: use.unpack(x[: len(index)], index, 1, total), rising and inside and len(index) <= total),
        "store_exits_": (lambda: use.store_exits_(torch.zeros(total, 4), x[: len(index)], index, index[:0]), rising and inside and len(index) <= total),
        "keep_topk": (lambda: use.keep_topk(x[:, 0].contiguous(), index, 0.5), bounds),
        "varlen_attention": (lambda: use.varlen_attention(q, q, q, index, other, 0.3), bounds and other >= max(longest, 0)),
        "core.compact": (lambda: core.compact(x.numpy(), index.numpy()), inside),
        "core.attn_importance": (lambda: core.attn_importance(*[q.numpy()] * 3, index.numpy(), 0.3), bounds),
    }
    for name, (call, true) in calls.items():
        try:
            call()
        except (ValueError, TypeError):
            assert not true, f"{name} refused what is right"
        else:
            assert true, f"{name} took what is wrong"
