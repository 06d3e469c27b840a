"""pytest-benchmark suite of the single ops at BERT-base's shape, for comparing two versions of the code.

    pytest benches --benchmark-enable --benchmark-autosave
    pytest benches --benchmark-enable --benchmark-compare
"""

import pytest
import torch

from tokprune_kernels import ops

TOKENS, HEADS, HEAD_DIM, WIDTH = 1024, 12, 64, 768
DTYPES = pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=("fp32", "bf16"))


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


def packed(length, dtype):
    q, k, v = torch.randn(TOKENS, 3, HEADS, HEAD_DIM).to(dtype).unbind(1)
    return q, k, v, torch.arange(0, TOKENS + 1, length, dtype=torch.int32), length, 0.125


@DTYPES
@pytest.mark.parametrize("length", (16, 128, 512))
def test_attn_importance(benchmark, dtype, length):
    context, importance = benchmark(ops.attn_importance, *packed(length, dtype))
    assert context.isfinite().all() and importance.isfinite().all()


@DTYPES
def test_prune_attention(benchmark, dtype):
    residual = torch.randn(TOKENS, WIDTH).to(dtype)
    q, k, v, cu_seqlens, length, scale = packed(128, dtype)
    results = benchmark(ops.prune_attention, q, k, v, residual, cu_seqlens, length, scale, keep_ratio=0.5)
    assert results[0].shape[0] == TOKENS // 2


@pytest.mark.parametrize("decide", (ops.keep_threshold, ops.keep_topk))
def test_decision(benchmark, decide):
    keep_idx, bounds = benchmark(decide, torch.rand(TOKENS), torch.arange(0, TOKENS + 1, 128, dtype=torch.int32), 0.5)
    assert len(keep_idx) == int(bounds[-1])


def test_compact(benchmark):
    x, keep_idx = torch.randn(TOKENS, WIDTH), torch.arange(0, TOKENS, 2, dtype=torch.int32)
    assert torch.equal(benchmark(ops.compact, x, keep_idx, TOKENS // 2), x[::2])


@DTYPES
@pytest.mark.parametrize(("rows", "out_features"), ((16, 3072), (128, 768), (TOKENS, 3072)))
def test_packed_linear(benchmark, dtype, rows, out_features):
    weight = ops.pack_weight(torch.randn(out_features, WIDTH).to(dtype))
    y = benchmark(ops.packed_linear, torch.randn(rows, WIDTH).to(dtype), weight, None, out_features, "gelu")
    assert y.shape == (rows, out_features)


@DTYPES
def test_add_layer_norm(benchmark, dtype):
    x, one = torch.randn(TOKENS, WIDTH).to(dtype), torch.ones(WIDTH, dtype=dtype)
    assert benchmark(ops.add_layer_norm, x, x, one, one, 1e-12).shape == x.shape
