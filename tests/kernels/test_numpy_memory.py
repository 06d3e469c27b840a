"""What numpy users can hand over: arrays at any byte, arrays of nothing, of objects, and numbers of threads that no machine has."""

import numpy as np
import pytest

core = pytest.importorskip("tokprune_kernels._core", reason="the compiled module is not built")

ISAS = pytest.mark.parametrize("isa", core.available_isas())


def misaligned(x):
    """A copy of x that begins one byte past an element."""
    memory = np.zeros(x.nbytes + 1, np.uint8)
    view = memory[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    assert not view.flags.aligned
    return view


@ISAS
@pytest.mark.parametrize("dtype", (np.float32, np.uint16))
def test_arrays_at_any_byte_give_the_same_bits(isa, dtype):
    generator = np.random.default_rng(0)
    q, k, v = generator.standard_normal((3, 50, 2, 16)).astype(np.float32).view(dtype)[..., :16]
    cu_seqlens, bias = np.array([0, 20, 50], np.int32), generator.standard_normal(50).astype(np.float32)
    x, one = q[:, 0], q[0, 0]
    calls = (
        lambda m: core.attn_importance(m(q), m(k), m(v), m(cu_seqlens), 0.2, key_bias=m(bias), row_weights=m(abs(bias)), isa=isa, threads=2),
        lambda m: core.linear(m(x), m(x[:7]), m(one[:7]), 1, m(cu_seqlens[:2]), isa=isa),
        lambda m: core.add_layer_norm(m(x), m(x), m(one), m(one), 1e-5, isa=isa),
        lambda m: core.keep_topk(m(bias), m(cu_seqlens), 0.5),
        lambda m: core.compact(m(x), m(cu_seqlens[:2])),
    )
    for call in calls:
        results = [call(move) for move in (np.array, misaligned)]
        for first, second in zip(*(r if isinstance(r, tuple) else (r,) for r in results), strict=True):
            assert first.tobytes() == second.tobytes()


@ISAS
@pytest.mark.parametrize("activation", range(4))
def test_a_product_of_no_features_is_the_bias(isa, activation):
    bias = np.linspace(-2, 2, 70, dtype=np.float32)
    identity = core.linear(bias[:, None], np.ones((1, 1), np.float32), activation=activation, isa=isa)[:, 0]
    for rows in (0, 1, 200):
        empty = np.zeros((rows, 0), np.float32)
        actual = core.linear(empty, np.zeros((70, 0), np.float32), bias, activation, isa=isa, threads=2)
        assert np.array_equal(actual, np.broadcast_to(identity, (rows, 70)))
        assert not core.linear(empty, np.zeros((70, 0), np.float32), isa=isa).any()


def test_arrays_of_nothing():
    none, bounds = np.zeros(0, np.float32), np.zeros(1, np.int32)
    assert core.keep_threshold(none, bounds, 0.5)[0].size == 0
    assert core.compact(np.zeros((0, 5)), np.zeros(0, np.int32)).shape == (0, 5)
    assert core.compact(np.zeros((3, 0)), np.zeros(2, np.int32)).shape == (2, 0)
    assert core.attn_importance(*[np.zeros((0, 2, 8), np.float32)] * 3, bounds, 0.1)[0].shape == (0, 2, 8)


Q, BOUNDS, ROW = np.ones((6, 2, 16), np.float32), np.array([0, 2, 6], np.int32), np.ones(16, np.float32)
BAD = {
    "peak of threads": (lambda: core.measure_peak(32, 0.01, threads=100_000), ValueError, "threads: must be from 1 to"),
    "bandwidth of threads": (lambda: core.measure_bandwidth(100_000, 2**20), ValueError, "threads: must be from 1 to"),
    "attention of threads": (lambda: core.attn_importance(Q, Q, Q, BOUNDS, 0.1, threads=2**31 - 1), ValueError, "threads"),
    "linear of threads": (lambda: core.linear(Q[:, 0], Q[:, 0], threads=1025), ValueError, "threads"),
    "compact of no threads": (lambda: core.compact(Q, BOUNDS[:1], threads=-3), ValueError, "threads"),
    "negative eps": (lambda: core.add_layer_norm(Q[:, 0], Q[:, 0], ROW, ROW, -1e-12), ValueError, "eps: must be finite and not neg"),
    "eps nan": (lambda: core.add_layer_norm(Q[:, 0], Q[:, 0], ROW, ROW, float("nan")), ValueError, "eps"),
    "objects": (lambda: core.compact(np.array([{}, [], "x"], object), BOUNDS[:1]), TypeError, "objects"),
    "index of two dimensions": (lambda: core.compact(Q, BOUNDS[None, :2]), ValueError, "keep_idx: must have one dimension"),
    "no memory": (lambda: core.compact(np.broadcast_to(Q, (1 << 40, 6, 2, 16)), BOUNDS[:1]), MemoryError, ".*"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_an_error_with_a_sentence(case):
    call, error, said = BAD[case]
    with pytest.raises(error, match=said):
        call()
