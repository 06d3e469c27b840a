"""Everything a GPU has to show, in one run of under 8 minutes: first that all is correct, then how fast it is.

    python benches/gpu.py                # add --out FOLDER to write elsewhere than benches/results

Needs no compiled CPU kernels. Correctness: every op in three dtypes against the float64 reference, the same bits again and again,
models in both modes against Hugging Face, no host sync in graph mode; after a wrong result nothing is timed. Then single kernels against
flash attention, FlexAttention, nonzero + index_select and cuBLAS, and BERT-base end to end. Writes results/gpu_kernels.csv,
gpu_models.csv, gpu_checks.csv with the machine's stamp; gpu_plots.py draws them, on any machine.
"""

import argparse
import csv
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' samples

import torch  # noqa: E402
from gpu_suite.checks import check_long, check_ops, check_races  # noqa: E402
from gpu_suite.kernels import attention_rows, decision_rows, linear_rows  # noqa: E402
from gpu_suite.models import model_rows  # noqa: E402
from gpu_suite.timing import peaks  # noqa: E402

from tokprune_kernels.cli.machine import machine_stamp  # noqa: E402
from tokprune_kernels.cli.table import format_table  # noqa: E402

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the CSVs and the stamp")
    parser.add_argument("--only", nargs="+", choices=("checks", "kernels", "models"), default=("checks", "kernels", "models"))
    parser.add_argument("--deadline", type=float, default=400.0, metavar="SECONDS", help="no workload starts after these (default 400)")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("this needs a CUDA GPU; without one run `pytest tests/gpu` and `python -m tokprune_kernels.gpu.aot`")
    start, dtype = time.monotonic(), torch.bfloat16

    def clock() -> float:
        return time.monotonic() - start

    flops, bandwidth = peaks(dtype)
    stamp = machine_stamp() | {"peak_tflops": flops / 1e12, "bandwidth_gb_s": bandwidth / 1e9}
    print(f"{stamp['gpu']}: {flops / 1e12:.0f} TFLOP/s, {bandwidth / 1e9:.0f} GB/s", flush=True)
    if "checks" in args.only:
        checks = check_ops() + check_long() + check_races()
        show(checks)
        write("gpu_checks", checks, args.out, stamp)
        if wrong := [row for row in checks if row["wrong"]]:
            print(*(f"WRONG: {row['op']} {row['dtype']} {row['wrong']}" for row in wrong), sep="\n")
            return 1
        print(f"all correct after {clock():.0f} s", flush=True)
    if "kernels" in args.only:
        measured = attention_rows(dtype) + decision_rows(dtype) + linear_rows(dtype)
        show(measured)
        write("gpu_kernels", measured, args.out, stamp)
    if "models" in args.only:
        workloads: dict[str, list[dict]] = {}
        for measured in model_rows(dtype, args.deadline, clock):
            measured = [row | {"share_of_peak": row["live_tflops"] * 1e12 / flops} for row in measured]
            show(measured)
            workloads[measured[0]["workload"]] = measured
            write("gpu_models", sum(workloads.values(), []), args.out, stamp)  # at once: it survives what comes after it
    print(f"done after {clock():.0f} s")
    return 0


def show(rows: list[dict]) -> None:
    print(format_table(list(rows[0]), [list(row.values()) for row in readable(rows)]), flush=True)


def readable(rows: list[dict]) -> list[dict]:
    """Values as they are printed and written, to four digits."""
    return [{key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in row.items()} for row in rows]


def write(name: str, rows: list[dict], out: Path, stamp: dict) -> None:
    """A CSV with the machine's stamp beside it."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / f"{name}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(readable(rows))
    (out / f"{name}.machine.json").write_text(json.dumps(stamp, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
