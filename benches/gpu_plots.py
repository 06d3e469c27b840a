"""Draw what gpu.py measured: python benches/gpu_plots.py writes results/plots/gpu_*.png from results/gpu_*.csv."""

import json
from collections.abc import Sequence
from pathlib import Path

from plots import Figure, legend, main  # says what to install where matplotlib is missing
from presentation import RESULTS, gpu_machine, read

# Okabe and Ito's colours, by what runs: competitors, ours dense, ours pruned.
COLOURS = {
    "hf_sdpa": "#E69F00",
    "torch_compile_reduce-overhead": "#009E73",
    "torch_compile_max-autotune": "#F0E442",
    "flash_packed": "#CC79A7",
    "ours_dense_exact": "#56B4E9",
    "ours_dense_graph": "#0072B2",
    "ours_top_exact": "#D55E00",
    "ours_top_graph": "black",
}
OTHERS = "#BBBBBB"


def models(rows: list[dict], stamp: dict) -> Figure:
    """BERT-base: times faster than Hugging Face's sdpa, and the share of the machine's peak that goes into live tokens."""
    figure = Figure(figsize=(12.5, 7.5), layout="constrained")
    upper, lower = figure.subplots(2, 1)
    workloads, contenders = _names(rows, "workload"), _names(rows, "contender")
    base = {row["workload"]: float(row["ms"]) for row in rows if row["contender"] == "hf_sdpa"}
    for axes, value, label in (
        (upper, lambda row: base[row["workload"]] / float(row["ms"]), "times faster than Hugging Face sdpa"),
        (lower, lambda row: float(row["share_of_peak"]), "share of the peak, live tokens"),
    ):
        _bars(axes, rows, "workload", workloads, contenders, value)
        axes.set_ylabel(label)
    legend(figure, loc="outside lower center", ncols=8)
    figure.suptitle(f"BERT-base end to end\n{gpu_machine(stamp)}", fontsize=9)
    return figure


def kernels(rows: list[dict], stamp: dict) -> Figure:
    """Single kernels: milliseconds over ours, shape by shape."""
    kinds = _names(rows, "what")
    figure = Figure(figsize=(12.5, 3.2 * len(kinds)), layout="constrained")
    for axes, what in zip(figure.subplots(len(kinds), 1, squeeze=False)[:, 0], kinds, strict=True):
        chosen = [row for row in rows if row["what"] == what]
        ours = {row["shape"]: float(row["ms"]) for row in chosen if row["contender"] == "ours"}
        value = lambda row, ours=ours: float(row["ms"]) / ours[row["shape"]]  # noqa: E731
        _bars(axes, chosen, "shape", _names(chosen, "shape"), _names(chosen, "contender"), value)
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_ylabel("time over ours")
        axes.set_title(what.replace("_", " "), fontsize=9)
        axes.legend(fontsize=7, ncols=6)
    figure.suptitle(f"Kernels (above 1: slower than ours)\n{gpu_machine(stamp)}", fontsize=9)
    return figure


def _bars(axes, rows, place_of, places: Sequence[str], contenders: Sequence[str], value) -> None:
    """A group of bars for each place, in it a bar for each contender that was measured there."""
    width = 0.84 / len(contenders)
    for index, contender in enumerate(contenders):
        chosen = [row for row in rows if row["contender"] == contender]
        at = [places.index(row[place_of]) + (index - (len(contenders) - 1) / 2) * width for row in chosen]
        colour = COLOURS.get(contender, OTHERS if not contender.startswith("ours") else None)
        axes.bar(at, [value(row) for row in chosen], width, label=contender, color=colour, edgecolor="white", linewidth=0.4)
    axes.set_xticks(range(len(places)), places, fontsize=7)
    axes.margins(x=0.01)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _names(rows: list[dict], column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows))


def draw(folder: Path) -> list[Path]:
    """Write the plots of a folder of results into its plots/ and return their paths; none for what was not measured."""
    paths = []
    for make in (models, kernels):
        source = folder / f"gpu_{make.__name__}.csv"
        if not source.is_file():
            print(f"not measured: {source.name}")
            continue
        rows = read(source.stem, folder)
        stamp = json.loads(source.with_suffix(".machine.json").read_text())
        paths.append(folder / "plots" / f"gpu_{make.__name__}.png")
        paths[-1].parent.mkdir(exist_ok=True)
        # No version inside, so that the same results make the same file.
        make(rows, stamp).savefig(paths[-1], dpi=100, metadata={"Software": None})
    return paths


if __name__ == "__main__":
    main(draw, __doc__, RESULTS, "the CSVs of gpu.py")
