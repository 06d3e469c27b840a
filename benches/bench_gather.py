"""Compaction, pack and unpack against a memory copy of the same size.

    python benches/bench_gather.py

The bandwidth of a row movement counts the bytes it reads and the bytes it writes; the copy is torch's, on contiguous
memory with the same number of threads, and moves as many bytes in all.
"""

import torch
from harness import arguments, lengths_of, publish, time_all

import tokprune_kernels as tk

WIDTH = 768


def keep_half(tokens: int) -> torch.Tensor:
    """Every other token on average, in random runs as pruning leaves them."""
    kept = torch.rand(tokens, generator=torch.Generator().manual_seed(0)) < 0.5
    return kept.nonzero().flatten().to(torch.int32)


def movements(tokens_of_task: str, batch: int):
    """(name, bytes moved, function, the copy that moves as many) for one batch of real lengths."""
    lengths = lengths_of(tokens_of_task)[:batch]
    tokens, longest = sum(lengths), max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    x, residual = torch.randn(tokens, WIDTH), torch.randn(tokens, WIDTH)
    keep = keep_half(tokens)
    kept = len(keep)
    padded = torch.randn(batch, longest, WIDTH)
    packed, _, token_idx = tk.ops.pack(padded, mask)
    assert torch.equal(tk.ops.compact(x, keep, kept), x[keep])
    assert torch.equal(packed, padded[mask])
    assert torch.equal(tk.ops.unpack(packed, token_idx, batch, longest)[mask], packed)
    row = WIDTH * 4
    places = batch * longest
    yield "compact", 2 * kept * row, lambda: tk.ops.compact(x, keep, kept)
    yield "compact two tensors", 4 * kept * row, lambda: tk.ops.compact_many([x, residual], keep, kept)
    yield "pack", 2 * tokens * row, lambda: tk.ops.pack(padded, mask)
    yield "unpack", (tokens + places) * row, lambda: tk.ops.unpack(packed, token_idx, batch, longest)


def main():
    options = arguments(__doc__)
    rows = []
    for task, batch in (("sst2", 32), ("20news", 8), ("20news", 32)):
        for name, moved, function in movements(task, batch):
            source = torch.randn(moved // 8)
            timings = time_all({"ours": function, "copy": lambda source=source: source.clone()}, options.repeats)
            ours, copy = timings["ours"].median_s, timings["copy"].median_s
            rows.append(
                {
                    "workload": f"{task} batch of {batch}",
                    "movement": name,
                    "megabytes": moved / 1e6,
                    "ours_gb_s": moved / ours / 1e9,
                    "copy_gb_s": moved / copy / 1e9,
                    "share_of_copy": copy / ours,
                }
            )
    publish("gather", rows, options)


if __name__ == "__main__":
    main()
