"""What the targets draw: lengths, numbers of every kind, and the places in memory where they may lie."""

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st

SEEDS = st.integers(0, 2**32 - 1)
# Lengths around the widths of vectors, panels, blocks and chunks, and any other.
LENGTHS = st.lists(st.one_of(st.sampled_from((0, 1, 2, 7, 8, 15, 16, 17, 24, 25, 63, 64, 65, 130, 193)), st.integers(0, 90)), max_size=5)
DTYPES = st.sampled_from((torch.float32, torch.bfloat16))
KINDS = st.sampled_from(("normal", "ties", "denormal", "tiny", "large", "zero", "nan", "inf"))
NOT_FINITE = ("nan", "inf")


@dataclass(frozen=True)
class Shape:
    """Of a batch of sequences and the heads of its tokens."""

    lengths: list
    heads: int
    head_dim: int


SHAPES = st.builds(Shape, LENGTHS, st.integers(1, 4), st.sampled_from((8, 16, 24, 32, 40, 64, 72, 128, 256)))


def numbers(shape, kind, seed, dtype=torch.float32):
    """A tensor of a kind of numbers; one in thirty is not finite where the kind says so."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    if kind == "ties":
        x = x.mul(2).round().div(2)
    elif kind in ("denormal", "tiny", "large", "zero"):
        x = x * {"denormal": 1e-40, "tiny": 1e-18, "large": 1e6, "zero": 0.0}[kind]
    elif kind in NOT_FINITE:
        hit = torch.rand(shape, generator=generator) < 1 / 30
        x = torch.where(hit, x.sign() * float(kind), x)
    return x.to(dtype)


def bounds_of(lengths):
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


# Where numbers lie: functions that give an equal tensor.
def _between_others(x):
    wide = torch.full((*x.shape[:-1], x.shape[-1] + 3), 7, dtype=x.dtype)
    wide[..., 2:-1] = x
    return wide[..., 2:-1]


def _every_second(x):
    wide = torch.full((*x.shape[:-1], 2 * x.shape[-1]), 7, dtype=x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def _turned(x):
    return x.transpose(0, -1).contiguous().transpose(0, -1)


def _late(x):
    memory = torch.full((x.numel() + 5,), 7, dtype=x.dtype)
    memory[5:] = x.flatten()
    return memory[5:].view(x.shape)


TORCH_PLACES = st.sampled_from((torch.clone, _between_others, _every_second, _turned, _late))


def as_numpy(x):
    """bfloat16 as its bits."""
    return x.contiguous().view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.contiguous().numpy()


def _misaligned(x):
    memory = np.full(x.nbytes + 1, 7, np.uint8)
    view = memory[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def _backwards(x):
    return np.ascontiguousarray(x[::-1])[::-1]


def _fortran(x):
    return np.asfortranarray(x)


NUMPY_PLACES = st.sampled_from((np.array, _misaligned, _backwards, _fortran))


def assert_within(actual, expected, limit, context=""):
    """Within `limit` (a number, or one for each element) where the expected is finite; not finite where it is not."""
    actual, expected = actual.double(), expected.double()
    finite = expected.isfinite()
    assert torch.equal(actual.isfinite(), finite), f"{context}: other places are not finite"
    error = torch.where(finite, (actual - expected).abs(), 0.0)
    wrong = error > limit
    assert not bool(wrong.any()), f"{context}: error {float(error[wrong].max()):.3g}"
