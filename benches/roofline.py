"""The roofline: the least time this machine could take for a forward pass, from two measured ceilings.

    python benches/roofline.py

measures the ceilings and writes results/roofline.csv: for every row of results/model.csv how near it comes.

Model. A forward pass takes at least as long as the slower of
  - its FLOPs (tokprune_kernels.flops, live tokens, what pruning really kept) at the active ISA's multiply-add peak,
  - its bytes at the memory's read bandwidth: every weight of the encoder once, in the dtype it runs in, and the rows
    of hidden states that enter the encoder and leave it.
Left out, as they can stay in cache or overlap: everything between the layers, LayerNorm, softmax, GELU, and the look-up
of embeddings. So the roofline is a floor that no implementation quite reaches; weights that stay in a large cache from
one batch to the next are the one way under it.
"""

import csv
from dataclasses import dataclass
from typing import Any

import torch
from harness import arguments, peak_flops, publish
from transformers import BertConfig

import tokprune_kernels as tk
from tokprune_kernels import _core

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MEGABYTES = 512  # streamed through for the bandwidth: far more than any last-level cache


@dataclass(frozen=True)
class Roofline:
    """The two ceilings of a machine with a number of threads.

    peak_flops: FLOP/s (2 per multiply-add) by dtype, "fp32" and "bf16". bytes_per_s: read bandwidth of its memory.
    """

    peak_flops: dict[str, float]
    bytes_per_s: float

    @classmethod
    def measure(cls, threads: int, rounds: int = 8) -> "Roofline":
        """Measure both on this machine: the best of short runs, as others on the machine only take away.

        rounds: runs of the bandwidth, about 0.4 s each. On shared hosts it is what changes most, by a factor of two and
        more within minutes, so a ceiling belongs to the numbers that were measured beside it.
        """
        peaks = {name: peak_flops(dtype, threads) for name, dtype in DTYPES.items()}
        runs = [_core.measure_bandwidth(threads=threads, megabytes=MEGABYTES, seconds=0.2) for _ in range(rounds)]
        return cls(peaks, max(runs))

    def to_dict(self) -> dict[str, float]:
        """The ceilings for a machine stamp: GFLOP/s by dtype, GB/s (1e9)."""
        peaks = {f"{dtype}_gflops": flops / 1e9 for dtype, flops in self.peak_flops.items()}
        return {name: round(value, 1) for name, value in (peaks | {"read_gb_per_s": self.bytes_per_s / 1e9}).items()}

    def seconds(self, flops: float, moved: float, dtype: str) -> float:
        """Least time for so many FLOPs in `dtype` and so many bytes from memory, seconds."""
        return max(flops / self.peak_flops[dtype], moved / self.bytes_per_s)

    def forward_seconds(
        self, config: Any, kept_lengths: torch.Tensor, dtype: str, exact_last_layer: bool = False
    ) -> float:
        """Least time for the encoder on one batch, seconds.

        config: as a transformers BertConfig. kept_lengths: (num_layers + 1, B) integers, as `out.pruning.kept_lengths`;
        for a dense model every row is the live lengths. dtype: "fp32" or "bf16". exact_last_layer: as
        tokprune_kernels.flops.encoder_flops has it.
        """
        flops = float(tk.flops.encoder_flops(kept_lengths, config, exact_last_layer=exact_last_layer).sum())
        return self.seconds(flops, forward_bytes(config, int(kept_lengths[0].sum()), dtype), dtype)


def forward_bytes(config: Any, tokens: int, dtype: str) -> int:
    """Bytes that a forward pass of the encoder must move: its weights once, `tokens` hidden states in and out."""
    d, f = config.hidden_size, config.intermediate_size
    projections = 4 * (d * d + d)  # query, key, value, output
    feed_forward = 2 * d * f + f + d
    layer_norms = 2 * 2 * d
    elements = config.num_hidden_layers * (projections + feed_forward + layer_norms) + 2 * tokens * d
    return elements * DTYPES[dtype].itemsize


def linear_bytes(rows: int, in_features: int, out_features: int, dtype: str) -> int:
    """Bytes that a linear layer must move: weight, input and output once."""
    return (in_features * out_features + rows * (in_features + out_features)) * DTYPES[dtype].itemsize


def share_of(row: dict[str, str], config: Any, roofline: Roofline) -> dict:
    """What bounds a row of model.csv, and how near it comes; its batches are taken as alike."""
    batches, dtype = int(row["batches"]), row["dtype"]
    flops = 1e9 * float(row["gflop"]) / batches
    moved = forward_bytes(config, round(int(row["tokens"]) / batches), dtype)
    compute_ms, memory_ms = 1e3 * flops / roofline.peak_flops[dtype], 1e3 * moved / roofline.bytes_per_s
    return {
        "dtype": dtype,
        "workload": row["workload"],
        "engine": row["engine"],
        "ms_per_batch": float(row["ms_per_batch"]),
        "compute_ms": compute_ms,
        "memory_ms": memory_ms,
        "bound_by": "compute" if compute_ms >= memory_ms else "memory",
        "share_of_roofline": max(compute_ms, memory_ms) / float(row["ms_per_batch"]),
    }


def main():
    options = arguments(__doc__)
    with open(options.out / "model.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["roofline_ms"]]  # none: skipped engines, other precisions
    roofline = Roofline.measure(options.threads, options.repeats)
    ceilings = roofline.to_dict()
    publish("roofline", [share_of(row, BertConfig(), roofline) for row in rows], options, {"ceilings": ceilings})
    for name, value in ceilings.items():
        print(f"{name}: {value:.4g}")


if __name__ == "__main__":
    main()
