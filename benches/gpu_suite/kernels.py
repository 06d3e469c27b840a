"""Single kernels against what a user would take instead."""

import torch

from tokprune_kernels import ops
from tokprune_kernels.gpu.attention import attend
from tokprune_kernels.gpu.linear import linear_into
from tokprune_kernels.reference.linear import ACTIVATIONS, FUNCTIONS

from .timing import available, time_on_gpu

HEADS, HEAD_DIM = 12, 64
SHAPES = ((512, 128), (256, 256), (128, 512), (8, 128), (1, 128))  # texts x tokens, the first three 64k tokens
FLEX = SHAPES[:3:2]  # it compiles anew for every shape


def attention_rows(dtype: torch.dtype) -> list[dict]:
    """Attention + importance against flash attention alone, FlexAttention, and flash with a second pass over the columns."""
    rows = []
    for texts, length in SHAPES:
        qkv = torch.randn(texts * length, 3, HEADS, HEAD_DIM, device="cuda", dtype=dtype)
        q, k, v = qkv.unbind(1)
        cu_seqlens = torch.arange(0, texts * length + 1, length, device="cuda", dtype=torch.int32)
        padded = [x.unflatten(0, (texts, length)).transpose(1, 2) for x in (q, k, v)]
        exact = torch.nn.functional.scaled_dot_product_attention(*(x.double() for x in (y[:2] for y in padded)))
        context, importance = ops.attn_importance(q, k, v, cu_seqlens, length, HEAD_DIM**-0.5)
        _require(context[: 2 * length].unflatten(0, (2 if texts > 1 else 1, length)), exact.transpose(1, 2)[: 2 if texts > 1 else 1])
        flash = lambda: torch.ops.aten._flash_attention_forward(  # noqa: E731
            q, k, v, cu_seqlens, cu_seqlens, length, length, 0.0, False, False, scale=HEAD_DIM**-0.5
        )
        contenders = {
            "ours": lambda: ops.attn_importance(q, k, v, cu_seqlens, length, HEAD_DIM**-0.5),
            "ours_no_importance": lambda: ops.varlen_attention(q, k, v, cu_seqlens, length, HEAD_DIM**-0.5),
            "ours_kernels_only": lambda: attend(q, k, v, cu_seqlens, length, HEAD_DIM**-0.5),
            "sdpa": lambda: torch.nn.functional.scaled_dot_product_attention(*padded),
            **available("flash_varlen", lambda: flash),
            **available("flash_and_columns", lambda: lambda: _flash_and_columns(flash, q, k, length)),
        }
        if (texts, length) in FLEX:
            contenders |= available("flex", lambda: _flex(padded))
        times = time_on_gpu(contenders)
        macs = 2 * HEADS * HEAD_DIM * length**2 * texts
        rows += [_row("attention", dtype, f"{texts}x{length}", name, ms, 2 * macs) for name, ms in times.items()]
    return rows


def _flash_and_columns(flash, q, k, length):
    """Importance from flash's log-sum-exp, by plain PyTorch: scores again, padded."""
    context, lse, *_ = flash()
    texts = q.shape[0] // length
    queries, keys = (x.unflatten(0, (texts, length)).transpose(1, 2) for x in (q, k))
    scores = torch.matmul(queries, keys.transpose(2, 3)) * q.shape[2] ** -0.5
    normaliser = lse.view(q.shape[1], texts, length).transpose(0, 1)
    return context, (scores.float() - normaliser[..., None]).exp().sum(dim=(1, 2)) / (q.shape[1] * length)


def _flex(padded):
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda: compiled(*padded)


def decision_rows(dtype: torch.dtype) -> list[dict]:
    """Decision + compaction of context and residual against nonzero + index_select."""
    rows = []
    for texts, length in SHAPES:
        total = texts * length
        importance = torch.rand(total, device="cuda") / length
        cu_seqlens = torch.arange(0, total + 1, length, device="cuda", dtype=torch.int32)
        xs = [torch.randn(total, HEADS * HEAD_DIM, device="cuda", dtype=dtype) for _ in range(2)]
        threshold = 0.5 / length

        def ours(xs=xs):
            keep_idx, bounds = ops.keep_threshold(importance, cu_seqlens, threshold, protect_first=False)
            return *ops.compact_many(xs, keep_idx, keep_idx.shape[0]), bounds

        def plain(xs=xs):
            keep = importance >= threshold
            index = keep.nonzero().flatten()
            bounds = torch.nn.functional.pad(keep.cumsum(0, dtype=torch.int32), (1, 0))[cu_seqlens]
            return *(x.index_select(0, index) for x in xs), bounds

        for a, b in zip(ours(), plain(), strict=True):
            if not torch.equal(a, b):
                raise SystemExit("decision and compaction: not what nonzero and index_select give")
        times = time_on_gpu({"ours": ours, "nonzero_index_select": plain})
        rows += [_row("decide_and_compact", dtype, f"{texts}x{length}", name, ms, 0) for name, ms in times.items()]
    return rows


def linear_rows(dtype: torch.dtype) -> list[dict]:
    """The product that reads its rows from the device against cuBLAS, in graphs, as it is used."""
    rows = []
    for count, inner, columns in ((65536, 768, 2304), (65536, 3072, 768), (4096, 768, 2304), (1024, 768, 768), (128, 768, 2304), (128, 3072, 768)):
        x, weight, bias = (torch.randn(*size, device="cuda", dtype=dtype) / 8 for size in ((count, inner), (columns, inner), (columns,)))
        out, live = x.new_empty(count, columns), torch.tensor([count], device="cuda", dtype=torch.int32)
        for what, activation, peer in (("linear", "none", "cublas"), ("linear_gelu", "gelu", "cublas, then gelu")):
            code = ACTIVATIONS[activation]
            ours = lambda code=code: linear_into(out, x, weight, bias, activation=code, count=live)  # noqa: E731
            plain = lambda *given, code=code: FUNCTIONS[code](torch.nn.functional.linear(*given))  # noqa: E731
            ours()
            _require(out, plain(x.double(), weight.double(), bias.double()))
            times = time_on_gpu({"ours": ours, peer: lambda plain=plain: plain(x, weight, bias)}, graphs=True)
            shape = f"{count}x{inner}x{columns}"
            rows += [_row(what, dtype, shape, name, ms, 2 * count * inner * columns) for name, ms in times.items()]
    return rows


def _require(actual, expected, tolerance: float = 2e-2) -> None:
    error = float((actual.double() - expected).abs().max() / expected.abs().max())
    if not error <= tolerance:
        raise SystemExit(f"wrong result (relative error {error:.2g}), so nothing is timed")


def _row(what, dtype, shape, name, ms, flops) -> dict:
    return {"what": what, "dtype": str(dtype).removeprefix("torch."), "shape": shape, "contender": name, "ms": ms, "tflops": flops / ms / 1e9}
