"""Memory that is not what it seems: nothing is read or written outside the tensors, and nothing is returned unwritten."""

import subprocess
import sys

import pytest
import torch

import tokprune_kernels.ops  # noqa: F401  (defines torch.ops.tokprune)
from tokprune_kernels import reference

from .samples import COMPILED_ONLY, GENERATORS, cu_seqlens_of, encoder_weights, randn

DTYPES = pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=("fp32", "bf16"))
op = torch.ops.tokprune


@DTYPES
@pytest.mark.parametrize("activation", range(4))
@pytest.mark.parametrize("bias", (None, randn(70)), ids=("no bias", "bias"))
def test_a_product_of_no_features_is_the_bias(dtype, activation, bias):
    x, bias = torch.zeros(5, 0, dtype=dtype), None if bias is None else bias.to(dtype)
    packed = op.pack_weight(torch.zeros(70, 0, dtype=dtype))
    expected = reference.packed_linear(x, packed, bias, 70, activation)
    for _ in range(3):  # fresh memory is often zero
        torch.full((5, 70), 7.0, dtype=dtype)
        torch.testing.assert_close(op.packed_linear(x, packed, bias, 70, activation), expected)


@DTYPES
def test_an_encoder_without_a_feed_forward_part(dtype):
    weights, lengths = encoder_weights(2, 16, 0, dtype), (3, 0, 5)
    arguments = (randn(8, 16, dtype=dtype), cu_seqlens_of(lengths), 5, weights, [1e-5] * 4, 2, 1, 0.3, [], False, False)
    expected = reference.encoder(*arguments, readout=1)
    tolerance = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 6e-2}
    torch.testing.assert_close(op.encoder(*arguments, readout=1), expected, **tolerance)


def shrunk(*shape, dtype=torch.float32, left=0):
    x = torch.zeros(*shape, dtype=dtype)
    x.untyped_storage().resize_(left)
    return x


INDEX = torch.arange(6, dtype=torch.int32)
Q = randn(6, 2, 16)
SHRUNK = {
    "q": lambda left: op.varlen_attention(shrunk(6, 2, 16, left=left), Q, Q, cu_seqlens_of([6]), 6, 0.2),
    "v": lambda left: op.attn_importance(Q, Q, shrunk(6, 2, 16, left=left), cu_seqlens_of([6]), 6, 0.2),
    "cu_seqlens": lambda left: op.keep_topk(randn(6), shrunk(2, dtype=torch.int32, left=min(left, 4)), 0.5),
    "importance": lambda left: op.keep_topk(shrunk(6, left=min(left, 4)), cu_seqlens_of([6]), 0.5),
    "x": lambda left: op.compact(shrunk(6, 32, left=left), INDEX, 6),
    "keep_idx": lambda left: op.compact(randn(6, 3), shrunk(6, dtype=torch.int32, left=min(left, 8)), 6),
    "residual": lambda left: op.add_layer_norm(randn(6, 32), shrunk(6, 32, left=left), randn(32), randn(32), 1e-5),
    "attention_mask": lambda left: op.pack_index(shrunk(6, 32, left=left)),
    "out": lambda left: op.store_exits_(shrunk(6, 32, left=left), randn(6, 32), INDEX, INDEX[:0]),
    "weight": lambda left: op.packed_linear(randn(3, 8), shrunk(1, 8, 64, left=left), None, 64),
}


@COMPILED_ONLY
@pytest.mark.parametrize("left", (0, 100))
@pytest.mark.parametrize("name", SHRUNK)
def test_a_storage_that_was_resized_is_refused(name, left):
    with pytest.raises(ValueError, match=f"{name}.*resized"):
        SHRUNK[name](left)


@COMPILED_ONLY
def test_memory_between_two_elements_is_refused():
    x = torch.frombuffer(bytearray(6 * 32 * 4 + 1), dtype=torch.float32, offset=1).view(6, 32)
    with pytest.raises(ValueError, match="x: its memory must be aligned"):
        op.compact(x, INDEX, 6)


def test_rows_that_are_written_must_not_be_those_that_are_read():
    memory = torch.zeros(20, 4)
    with pytest.raises(ValueError, match="out.*must not share memory with x"):
        op.store_exits_(memory[:12], memory[8:14], INDEX, INDEX[:0])
    op.store_exits_(memory[:12], memory[12:18], INDEX, INDEX[:0])


def test_indices_in_the_memory_that_is_written_are_read_before():
    """More rows than one task moves, so that indices are read while others have been overwritten."""
    rows, width = 40_000, 2
    memory = torch.arange(rows * width, dtype=torch.int32)
    out, token_idx = memory.view(rows, width), memory[:rows]
    x = torch.full((rows, width), 2**30, dtype=torch.int32)
    op.store_exits_(out, x, token_idx, INDEX[:0])
    assert bool((out == 2**30).all())


# A bound that another thread sets wrong and right again: of many bounds, so that time passes between the check of one and its use.
REWRITTEN = """
import sys, threading, time, torch, tokprune_kernels.ops
torch.set_num_threads(1)
many = 200_000
bounds, stop = torch.zeros(many + 1, dtype=torch.int32), False
bounds[many // 2:] = 4000
def write():
    while not stop:
        bounds[many // 4] = 2**30
        time.sleep(5e-5)
        bounds[many // 4] = 0
        time.sleep(2e-4)
thread = threading.Thread(target=write); thread.start()
scores = torch.rand(4000)
for _ in range(int(sys.argv[1])):
    try:
        torch.ops.tokprune.keep_threshold(scores, bounds, 0.5)
    except ValueError:
        pass
stop = True; thread.join(); print("survived")
"""


@COMPILED_ONLY
def test_bounds_that_another_thread_rewrites():
    done = subprocess.run([sys.executable, "-c", REWRITTEN, "500"], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "survived", (done.returncode, done.stderr[-500:])


ABSURD = {
    "weight": lambda: op.packed_linear(randn(3, 8), torch.zeros(1, 8, 64), None, 2**63 - 1),
    "batch": lambda: op.unpack(randn(1, 4), INDEX[:1], 2**40, 2**40),
    "places": lambda: op.encoder(torch.zeros(0, 16), cu_seqlens_of([]), 0, [], [], 2, 0, 0.2, [], False, False, token_idx=INDEX[:0], places=-5),
    "elements": lambda: op.encoder(
        torch.zeros(0, 16), cu_seqlens_of([]), 0, [], [], 2, 0, 0.2, [], False, False, token_idx=INDEX[:0], places=2**60
    ),
}


@COMPILED_ONLY
@pytest.mark.parametrize("name", ABSURD)
def test_absurd_sizes_are_refused(name):
    with pytest.raises(ValueError, match=name):
        ABSURD[name]()


def test_every_op_takes_a_batch_of_nothing():
    """Of the samples: those without a token, whose memory is null."""
    count = 0
    for name, generator in GENERATORS.items():
        for sample in generator(torch.float32):
            if sample.name.startswith(("no_sequences", "all_empty", "none", "no texts", "no positions", "0x")):
                getattr(op, name)(*sample.args, **sample.kwargs)
                count += 1
    assert count > 20
