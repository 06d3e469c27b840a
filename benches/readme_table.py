"""Write the README's results table from the committed results: python benches/readme_table.py

With --check nothing is written; the exit code says whether the README is up to date.
"""

import csv
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
MODEL_NAMES = {
    "huggingface": "Hugging Face sdpa, padded",
    "packed": "ours, packed dense",
    "top": "ours, pruned by keep ratios (ToP)",
    "ltp": "ours, pruned by thresholds (LTP)",
}


def read(name: str) -> list[dict[str, str]]:
    with open(HERE / "results" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def times(value: str) -> str:
    return f"{float(value):.2f}x"


def share(value: str) -> str:
    return f"{100 * float(value):.0f}%"


def table(headers: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (headers, ["---"] * len(headers), *rows)]


def machine(name: str) -> str:
    stamp = json.loads((HERE / "results" / f"{name}.machine.json").read_text())
    packages = ", ".join(f"{key} {value}" for key, value in stamp["packages"].items() if value and key in ("torch", "transformers"))
    return f"{stamp['cpu']['model']}, {stamp['threads']} threads, {stamp['active_isa']}, {packages}, {stamp['date'][:10]}"


def model_table() -> list[str]:
    rows = []
    for row in read("model"):
        saved = share(row["flops_saved_as_time"]) if row["model"] in ("top", "ltp") else ""
        vs_packed = "" if row["model"] == "huggingface" else times(row["time_vs_packed"])
        padded, flops = (("", "") if row["model"] == "huggingface" else (times(row["flops_vs_padded"]), times(row["flops_vs_packed"])))
        rows.append(
            [row["dtype"], row["workload"], MODEL_NAMES[row["model"]], f"{float(row['ms_per_batch']):.1f}",
             times(row["time_vs_huggingface"]), padded, vs_packed, flops, saved]
        )  # fmt: skip
    headers = ["dtype", "texts", "model", "ms per batch", "faster than Hugging Face", "fewer FLOPs than padded", "faster than packed dense",
               "fewer FLOPs than packed dense", "of the FLOPs gain as time"]  # fmt: skip
    return table(headers, rows)


def attention_table() -> list[str]:
    rows = [
        [row["dtype"], row["workload"], times(row["vs_sdpa"]), times(row["vs_eager"]),
         f"{100 * float(row['importance_cost']):.1f}%", share(row["share_of_peak"])]
        for row in read("attention")
    ]  # fmt: skip
    headers = ["dtype", "texts x tokens", "vs `scaled_dot_product_attention` (no importance)", "vs eager with column means",
               "cost of importance", "of the multiply-add peak"]  # fmt: skip
    return table(headers, rows)


def results() -> str:
    lines = [
        f"BERT-base shape with random weights on the lengths of real text, `benches/bench_model.py` ({machine('model')}):",
        "",
        *model_table(),
        "",
        f"Attention with importance at BERT-base's head shape, `benches/bench_attention.py` ({machine('attention')}):",
        "",
        *attention_table(),
        "",
        "All numbers, with compaction, pack and unpack: `benches/results/`. How they are measured: "
        "[docs/benchmarks.md](docs/benchmarks.md).",
    ]
    return "\n".join(lines)


def main() -> int:
    text = README.read_text()
    head, rest = text.split(BEGIN)
    updated = f"{head}{BEGIN}\n{results()}\n{END}{rest.split(END)[1]}"
    if "--check" in sys.argv[1:]:
        return int(updated != text)
    README.write_text(updated)
    return 0


if __name__ == "__main__":
    sys.exit(main())
