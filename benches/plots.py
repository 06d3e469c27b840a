"""Draw the committed results: python benches/plots.py writes results/plots/*.png from results/model.csv."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from presentation import DTYPES, LABELS, PEERS, PRUNED, RESULTS, ModelResults

try:
    from matplotlib.figure import Figure  # the class itself draws without a display
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
except ImportError:
    sys.exit("the plots need matplotlib: pip install matplotlib")

# Okabe and Ito's colours, told apart with every kind of colour blindness; markers and lines say the same once more.
COLOURS = {
    "hf_eager": "#BBBBBB",
    "hf_sdpa": "#E69F00",
    "torch_compile": "#009E73",
    "onnxruntime": "#CC79A7",
    "onnxruntime_plain": "#F0E442",
    "openvino": "#56B4E9",
    "ours_dense": "#0072B2",
    "ours_top": "#0072B2",
    "ours_ltp": "#D55E00",
    "ours_top_8x": "#009E73",
}
MARKERS = {
    "hf_eager": "v",
    "hf_sdpa": "s",
    "torch_compile": "D",
    "onnxruntime": "P",
    "onnxruntime_plain": "X",
    "openvino": "^",
    "ours_dense": "o",
    "ours_top": "o",
    "ours_ltp": "^",
    "ours_top_8x": "s",
}
ROOFLINE = {"color": "black", "linewidth": 1.5, "label": "roofline"}
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}


def throughput(model: ModelResults) -> Figure:
    """Bars of live GFLOP/s per workload and dense engine; a line over each workload is its roofline."""
    figure = Figure(figsize=(12.5, 8), layout="constrained")
    for axes, dtype in zip(figure.subplots(len(DTYPES), 1), DTYPES, strict=True):
        engines, workloads = (*PEERS[dtype], "ours_dense"), model.workloads(dtype)
        width = 0.84 / len(engines)
        for index, engine in enumerate(engines):
            rows = {place: row for place, name in enumerate(workloads) if (row := model.row(dtype, name, engine))}
            if rows:
                places = [place + (index - (len(engines) - 1) / 2) * width for place in rows]
                heights = [float(row["live_gflops"]) for row in rows.values()]
                look = {"label": LABELS[engine], "color": COLOURS[engine], "edgecolor": "white", "linewidth": 0.4}
                axes.bar(places, heights, width, **look)
        ceilings = {place: value for place, name in enumerate(workloads) if (value := ceiling(model, dtype, name))}
        if ceilings:
            axes.hlines(list(ceilings.values()), [p - 0.45 for p in ceilings], [p + 0.45 for p in ceilings], **ROOFLINE)
        axes.set_xticks(range(len(workloads)), [wrapped(name) for name in workloads], fontsize=7)
        axes.margins(x=0.01)
        axes.set_ylabel(f"{PRECISIONS[dtype]}: live GFLOP/s")
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    legend(figure, loc="outside lower center", ncols=8)
    title(figure, "Dense models: FLOPs of live tokens per second (more is better)", model)
    return figure


def ceiling(model: ModelResults, dtype: str, workload: str) -> float | None:
    """The roofline of a dense forward in GFLOP/s."""
    row = model.row(dtype, workload, "ours_dense")
    if row is None or not row["roofline_ms"]:
        return None
    return 1e3 * float(row["gflop"]) / int(row["batches"]) / float(row["roofline_ms"])


def latency(model: ModelResults) -> Figure:
    """Milliseconds of one text against its length, both axes logarithmic, with the roofline."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    for axes, dtype in zip(figure.subplots(1, len(DTYPES)), DTYPES, strict=True):
        lengths = sorted(int(name[2:]) for name in model.workloads(dtype) if name.startswith("1x"))
        for engine in (*PEERS[dtype], "ours_dense"):
            rows = {length: row for length in lengths if (row := model.row(dtype, f"1x{length}", engine))}
            if rows:
                times = [float(row["ms_per_batch"]) for row in rows.values()]
                axes.plot(list(rows), times, label=LABELS[engine], color=COLOURS[engine], marker=MARKERS[engine])
        dense = {length: row for length in lengths if (row := model.row(dtype, f"1x{length}", "ours_dense"))}
        floor = {length: float(row["roofline_ms"]) for length, row in dense.items() if row["roofline_ms"]}
        if floor:
            axes.plot(list(floor), list(floor.values()), linestyle="--", **ROOFLINE)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(lengths, [str(length) for length in lengths])
        axes.set_xlabel("tokens")
        axes.set_ylabel("ms")
        axes.set_title(PRECISIONS[dtype])
        axes.grid(alpha=0.3)
    legend(figure, loc="outside right upper")
    title(figure, "One text at a time (less is better)", model)
    return figure


def pruning(model: ModelResults) -> Figure:
    """Speed-up over our dense model against the reduction of FLOPs: on the diagonal every saved FLOP is saved time."""
    figure = Figure(figsize=(6, 5.5), layout="constrained")
    axes, furthest = figure.subplots(), 1.0
    for engine in PRUNED:
        for dtype in DTYPES:
            rows = [row for name in model.workloads(dtype) if (row := model.row(dtype, name, engine))]
            rows = [row for row in rows if row["vs_ours_dense"]]  # empty where ours_dense was not timed beside it
            if not rows:
                continue
            saved, faster = ([float(row[column]) for row in rows] for column in ("flops_vs_dense", "vs_ours_dense"))
            furthest = max(furthest, *saved, *faster)
            face = COLOURS[engine] if dtype == "fp32" else "none"  # filled or not: the precision
            look = {"marker": MARKERS[engine], "facecolors": face, "edgecolors": COLOURS[engine], "linewidths": 1.5}
            axes.scatter(saved, faster, 45, label=f"{LABELS[engine]}, {dtype}", **look)
    diagonal = [1, 1.05 * furthest]
    axes.plot(diagonal, diagonal, color="black", linestyle="--", linewidth=1, label="every saved FLOP is time")
    axes.set_xlabel("fewer FLOPs than dense, times")
    axes.set_ylabel("faster than our dense model, times")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize=8, frameon=False)  # above the diagonal there is room
    title(figure, "Pruned models: FLOPs saved and time saved", model)
    return figure


def title(figure: Figure, text: str, model: ModelResults) -> None:
    figure.suptitle(f"{text}\n{model.machine}", fontsize=9)


def legend(figure: Figure, **where) -> None:
    """One legend for all panels: what is missing in one may be in another."""
    entries = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    if entries:
        figure.legend(entries.values(), entries.keys(), fontsize=8, frameon=False, **where)


def wrapped(workload: str) -> str:
    return workload.replace(" batches", "\nbatches").replace(", ", ",\n").replace(" padded", "\npadded")


def draw(results: Path) -> list[Path]:
    """Write the plots of results/model.csv into results/plots and return their paths."""
    model, folder = ModelResults(results), results / "plots"
    folder.mkdir(exist_ok=True)
    paths = []
    for make in (throughput, latency, pruning):
        paths.append(folder / f"{make.__name__}.png")
        # No version inside, so that the same results make the same file.
        make(model).savefig(paths[-1], dpi=100, metadata={"Software": None})
    for dtype in DTYPES:
        if missing := model.missing_peers(dtype):
            print(f"not in the plots, as not measured in {dtype}: {'; '.join(missing)}")
    return paths


def main(draw: Callable[[Path], list[Path]], description: str, out: Path, content: str) -> None:
    """The command line of a script that draws: `draw` gets the folder, `out` unless another was named, and its files are printed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=out, help=f"folder with {content}")
    for path in draw(parser.parse_args().out):
        print(path)


if __name__ == "__main__":
    main(draw, __doc__, RESULTS, "model.csv")
