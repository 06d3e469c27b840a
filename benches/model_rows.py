"""The rows of results/model.csv: made from timings, merged with those of earlier runs.

Ratios are given only between engines timed in the same run, so a run of few engines leaves some of them empty.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from engines.engine import LOW_PRECISION, OURS, PEER, Batch, Engine
from transformers import BertConfig
from workloads import Workload

import tokprune_kernels as tk
from tokprune_kernels.cli.timing import Timing

BASELINE, OUR_DENSE = "hf_sdpa", "ours_dense"
KEY = ("dtype", "workload", "engine")
COLUMNS = (
    *KEY, "tokens", "padded_tokens", "batches", "gflop", "ms_per_batch", "p95_ms_per_batch", "rounds", "live_gflops",
    "vs_huggingface", "vs_best_peer", "vs_ours_dense", "flops_vs_dense", "flops_vs_padded",
    "roofline_ms", "share_of_roofline",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One engine on one workload.

    timing: of all batches in turn. kept_lengths: for each batch (layers + 1, B) tokens, as tokprune_kernels.flops
    counts them with `config`, that of the engine's model.
    """

    engine: Engine
    timing: Timing
    kept_lengths: list[torch.Tensor]
    config: BertConfig


def rows_of(dtype: str, workload: Workload, measured: Sequence[Measured], roofline) -> list[dict]:
    """One row for each engine. roofline: gives a batch's `forward_seconds(config, kept_lengths, dtype, exact_last_layer)`."""
    shape = measured[0].config  # the same for all; pruning apart
    seconds = {one.engine.name: one.timing.median_s for one in measured}
    peers = [seconds[one.engine.name] for one in measured if one.engine.kind == PEER]
    batches = len(workload.batches)
    dense = float(tk.flops.dense_flops(workload.lengths, shape).sum())
    padded = float(sum(_padded_flops(batch, shape) for batch in workload.batches))
    rows = []
    for one in measured:
        own = seconds[one.engine.name]
        exact = one.engine.pooled_only
        flops = float(sum(tk.flops.encoder_flops(kept, one.config, exact_last_layer=exact).sum() for kept in one.kept_lengths))
        floor = None
        if one.engine.kind != LOW_PRECISION:  # the ceilings are those of fp32 and bf16
            floor = sum(roofline.forward_seconds(one.config, kept, dtype, exact) for kept in one.kept_lengths)
        values = (
            dtype, workload.name, one.engine.name,
            int(workload.lengths.sum()), workload.padded_tokens, batches, flops / 1e9,
            1e3 * own / batches, 1e3 * one.timing.p95_s / batches, len(one.timing.samples_s), dense / own / 1e9,
            _ratio(seconds.get(BASELINE), own), _ratio(min(peers, default=None), own),
            _ratio(seconds.get(OUR_DENSE), own),
            dense / flops, padded / flops if one.engine.kind == OURS else 1.0,
            floor and 1e3 * floor / batches, floor and floor / own,
        )  # fmt: skip
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def merged(old: Sequence[Mapping], new: Sequence[Mapping], order: Sequence[Sequence[str]]) -> list[dict]:
    """New rows in place of old ones with the same KEY, sorted by `order`: the known values of each column of KEY.

    Old rows whose key has a value that is no longer known are left out.
    """
    rows = {tuple(row[column] for column in KEY): dict(row) for row in (*old, *new)}
    known = [key for key in rows if all(value in values for value, values in zip(key, order, strict=True))]
    return [rows[key] for key in sorted(known, key=lambda key: [v.index(x) for x, v in zip(key, order, strict=True)])]


def read(path: Path) -> list[dict[str, str]]:
    """The rows of an earlier run; none where there is no file, or one with other columns."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        print(f"{path} has other columns than today's results: its rows are replaced, not kept")
        return []
    return rows


def _padded_flops(batch: Batch, config: BertConfig) -> torch.Tensor:
    texts, length = batch["input_ids"].shape
    return tk.flops.dense_flops(torch.full((texts,), length), config).sum()


def _ratio(other: float | None, own: float) -> float | None:
    return None if other is None else other / own
