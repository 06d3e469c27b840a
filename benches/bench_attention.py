"""Fused attention + importance at BERT-base's head shape, against scaled_dot_product_attention and eager attention.

    python benches/bench_attention.py

Contenders, on the same numbers: ours with importance (packed, strided views of one fused QKV), ours without, torch's
scaled_dot_product_attention without importance (padded; a mask where lengths differ), and eager attention with the
column means that give the importance (padded).
"""

import torch
from harness import arguments, dtype_name, lengths_of, peak_flops, publish, require_close, time_all

import tokprune_kernels as tk

HEADS, HEAD_DIM, SCALE = 12, 64, 0.125


def workloads():
    """(name, lengths): fixed shapes, then batches of real text as it comes."""
    for batch, length in ((8, 128), (8, 384), (1, 512), (64, 16), (1, 128), (32, 128)):
        yield f"{batch}x{length}", [length] * batch
    yield "sst2 batch of 32", lengths_of("sst2")[:32]
    yield "20news batch of 8", lengths_of("20news")[:8]


def padded_inputs(q, k, v, lengths):
    """(B, H, L, D) views or copies, and a (B, 1, 1, L) mask, None where the lengths are equal."""
    batch, longest = len(lengths), max(lengths)
    if len(set(lengths)) == 1:
        return *(x.unflatten(0, (batch, longest)).transpose(1, 2) for x in (q, k, v)), None
    live = torch.arange(longest) < torch.tensor(lengths)[:, None]
    index = live.flatten().nonzero().flatten().to(torch.int32)
    padded = (tk.ops.unpack(x.flatten(1), index, batch, longest) for x in (q, k, v))
    return *(x.unflatten(2, (HEADS, HEAD_DIM)).transpose(1, 2) for x in padded), live[:, None, None, :]


def eager(q, k, v, mask):
    """Attention as Hugging Face's eager path computes it, and the column means that give the importance (LTP, ToP)."""
    scores = torch.matmul(q, k.transpose(2, 3)) * SCALE
    if mask is not None:
        scores = scores + torch.where(mask, 0.0, torch.finfo(scores.dtype).min).to(scores.dtype)
    probabilities = torch.nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    context = torch.matmul(probabilities, v).transpose(1, 2).contiguous()
    return context, probabilities.mean(dim=(1, 2), dtype=torch.float32)


def measure(name, lengths, dtype, options):
    total, longest = sum(lengths), max(lengths)
    qkv = torch.randn(total, 3, HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(0)).to(dtype)
    q, k, v = qkv.unbind(1)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    qp, kp, vp, mask = padded_inputs(q, k, v, lengths)
    packed = (q, k, v, cu_seqlens, longest, SCALE)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    contenders = {
        "ours": lambda: tk.ops.attn_importance(*packed),
        "ours_no_importance": lambda: tk.ops.varlen_attention(*packed),
        "sdpa": lambda: sdpa(qp, kp, vp, attn_mask=mask, scale=SCALE),
        "eager": lambda: eager(qp, kp, vp, mask),
    }
    context, importance = contenders["ours"]()
    exact, exact_scores = tk.reference.attn_importance(*(x.double() for x in (q, k, v)), cu_seqlens, longest, SCALE)
    require_close(f"{name} context", context, exact, 1e-5 if dtype == torch.float32 else 2e-2)
    require_close(f"{name} importance", importance, exact_scores, 1e-5)
    timings = time_all(contenders, options.repeats)
    median = {key: timing.median_s for key, timing in timings.items()}
    flops = sum(4 * HEADS * HEAD_DIM * length**2 for length in lengths)
    return {
        "dtype": dtype_name(dtype),
        "workload": name,
        "tokens": total,
        "ours_us": 1e6 * median["ours"],
        "ours_p95_us": 1e6 * timings["ours"].p95_s,
        "vs_sdpa": median["sdpa"] / median["ours"],
        "vs_eager": median["eager"] / median["ours"],
        "importance_cost": median["ours"] / median["ours_no_importance"] - 1,
        "gflops": flops / median["ours"] / 1e9,
        "share_of_peak": flops / median["ours"] / peak_flops(dtype, options.threads),
    }


def main():
    options = arguments(__doc__)
    rows = [measure(name, lengths, dtype, options) for dtype in (torch.float32, torch.bfloat16) for name, lengths in workloads()]
    single = {row["workload"]: row["ours_us"] for row in rows if row["dtype"] == "fp32"}
    for row in rows:
        row["bf16_gain"] = single[row["workload"]] / row["ours_us"]
    publish("attention", rows, options)


if __name__ == "__main__":
    main()
