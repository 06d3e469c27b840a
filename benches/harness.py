"""What every benchmark here shares: threads, correctness before timing, interleaved rounds, CSV and machine stamp.

Numbers are ratios from one process; see docs/benchmarks.md for the rules.
"""

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path

import torch

from tokprune_kernels import _core
from tokprune_kernels.cli.arguments import thread_count
from tokprune_kernels.cli.machine import cores, machine_stamp
from tokprune_kernels.cli.table import format_table
from tokprune_kernels.cli.timing import Timing, interleave

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def arguments(
    description: str, more: Callable[[argparse.ArgumentParser], None] = lambda parser: None
) -> argparse.Namespace:
    """Parse the options that every benchmark has and those that `more` adds, and set the number of threads."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--threads", type=thread_count, default=min(2, cores()))
    parser.add_argument("--repeats", type=int, default=40, help="interleaved rounds per workload")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the CSV and the machine stamp")
    more(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def lengths_of(task: str) -> list[int]:
    """Token counts of a task's texts, in their order: sst2 (validation), mrpc (test, pairs), 20news (test, cut at 512)."""
    return json.loads((HERE / "lengths" / f"{task}.json").read_text())


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest error relative to the largest value; NaN if there is one."""
    return float((actual.double() - expected.double()).abs().max() / expected.double().abs().max())


def require_close(name: str, actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Refuse to go on to timing where a result is wrong (largest error relative to the largest value)."""
    error = relative_error(actual, expected)
    if not error <= tolerance:
        raise SystemExit(f"{name}: wrong result (relative error {error:.2g} > {tolerance:g}), so nothing is timed")


def peak_flops(dtype: torch.dtype, threads: int) -> float:
    """Measured multiply-add ceiling of the active ISA, FLOP/s, best of five short runs."""
    bits = {torch.float32: 32, torch.bfloat16: 16}[dtype]
    return max(_core.measure_peak(bits, seconds=0.1, threads=threads) for _ in range(5))


def time_all(contenders: dict[str, Callable[[], object]], repeats: int, warmup: int = 3, **limits) -> dict[str, Timing]:
    """Interleaved timings without autograd; limits: budget_s, at_least and settle_s of `interleave`."""
    with torch.inference_mode():
        return interleave(contenders, repeats, warmup, **limits)


def dtype_name(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]


def publish(name: str, rows: list[dict], options: argparse.Namespace, extra: dict | None = None) -> None:
    """Print the rows as a table and `save` them."""
    headers = list(rows[0])
    print(format_table(headers, [[_short(row[header]) for header in headers] for row in rows]))
    save(name, rows, options, extra)


def save(name: str, rows: list[dict], options: argparse.Namespace, extra: dict | None = None) -> None:
    """Write the rows as CSV, with the machine they came from, and `extra`, beside it."""
    headers = list(rows[0])
    options.out.mkdir(parents=True, exist_ok=True)
    with open(options.out / f"{name}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, headers, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _short(value) for key, value in row.items()} for row in rows)
    stamp = machine_stamp() | {"active_isa": _core.active_isa(), "repeats": options.repeats} | (extra or {})
    (options.out / f"{name}.machine.json").write_text(json.dumps(stamp, indent=2) + "\n")


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value
