"""The ops under torch.compile and torch.export, exact and capacity forms, with other sizes than they were traced with."""

import pytest
import torch

from tokprune_kernels import ops

from .samples import cu_seqlens_of, qkv, randn


def prune_layer(q, k, v, residual, cu_seqlens):
    """One pruning step as a downstream model would write it."""
    context, importance = ops.attn_importance(q, k, v, cu_seqlens, 512, 0.2)
    keep_idx, bounds = ops.keep_threshold(importance, cu_seqlens, 0.03)
    rows = ops.compact(residual, keep_idx, keep_idx.shape[0])
    return ops.compact(context, keep_idx, keep_idx.shape[0]).flatten(1) + rows, bounds


def fused_layer(q, k, v, residual, cu_seqlens):
    context, rows, _, keep_idx, bounds = ops.prune_attention(q, k, v, residual, cu_seqlens, 512, 0.2, keep_ratio=0.5)
    return context.flatten(1) + rows, bounds


def capacity_layer(q, k, v, residual, cu_seqlens):
    context, importance = ops.attn_importance(q, k, v, cu_seqlens, 512, 0.2)
    keep_idx, bounds = ops.keep_topk(importance, cu_seqlens, 0.5, capacity=True)
    context, rows = ops.compact_many([context, residual], keep_idx, keep_idx.shape[0])
    return context.flatten(1) + rows, bounds


def arguments(lengths):
    return *qkv(lengths, heads=3, head_dim=16), randn(sum(lengths), 48), cu_seqlens_of(lengths)


def assert_same(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=0, atol=0)


LAYERS = pytest.mark.parametrize("layer", (prune_layer, fused_layer, capacity_layer))


@LAYERS
def test_compile_without_graph_breaks_for_any_lengths(layer):
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
        for lengths in ([30, 40, 9], [5, 80, 3], [100, 1, 0]):
            assert_same(compiled(*arguments(lengths)), layer(*arguments(lengths)))


@LAYERS
def test_export_with_dynamic_row_counts(layer):
    class Module(torch.nn.Module):
        def forward(self, *args):
            return layer(*args)

    tokens, bounds = torch.export.Dim("tokens", min=2), torch.export.Dim("bounds", min=2)
    shapes = (({0: tokens}, {0: tokens}, {0: tokens}, {0: tokens}, {0: bounds}),)
    program = torch.export.export(Module(), arguments([30, 40, 9]), dynamic_shapes=shapes)
    for lengths in ([30, 40, 9], [5, 80], [17, 1, 0, 200]):
        assert_same(program.module()(*arguments(lengths)), layer(*arguments(lengths)))
