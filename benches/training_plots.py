"""Draw the kept trainings: python benches/training_plots.py writes results/training/*.png; without trainings it writes nothing."""

from collections.abc import Callable
from pathlib import Path
from statistics import mean

from plots import Figure, MaxNLocator, legend, main  # says what to install where matplotlib is missing
from training.results import DATA_SETS, KEPT, METHODS, DataSet, Trained, TrainingResults
from training.section import POINTS

# Okabe and Ito's colours as in plots.py; markers say the same once more, lines tell trainings of a method apart.
LOOKS = {
    "dense": ("black", "o"),
    "ltp": ("#D55E00", "^"),
    "top": ("#0072B2", "s"),
    "fixed": ("#E69F00", "v"),
    "topk": ("#009E73", "D"),
}
LINES = ("solid", "dashed", "dotted", "dashdot")
# No score is higher: a threshold above it says that nothing but the first token stays, and has no place on the axis.
HIGHEST_SCORE = 1.0
LAYERED = {"thresholds": "threshold", "keep_ratios": "share kept of those alive", "tokens_alive": "share of tokens alive"}


def score(results: TrainingResults) -> Figure:
    """Score against the reduction of FLOPs: a mark for each seed, the mean filled, dense and one point below it as lines.

    A line through a mark: the same weights with their pruning made milder or harsher.
    """
    figure = Figure(figsize=(4.5 * len(results.data_sets) + 1.5, 4), layout="constrained")
    for axes, data in zip(figure.subplots(1, len(results.data_sets), squeeze=False)[0], results.data_sets, strict=True):
        about = DATA_SETS.get(data, DataSet(data))
        dense = results.dense(data)
        if dense is not None:
            level = mean(dense.scores.values())
            axes.axhline(level, color="black", linewidth=1.2, label="dense")
            axes.axhline(level - POINTS, color="black", linewidth=1, linestyle="--", label=f"dense - {POINTS:g} point")
        for one in results.of(data):
            if one is dense:
                continue
            colour, marker = LOOKS[one.method]
            saved, scores = one.saved("packed"), list(one.scores.values())
            axes.scatter(saved, scores, 22, marker=marker, facecolors="none", edgecolors=colour, alpha=0.6)
            for seed in one.results:
                if points := one.points(seed):
                    axes.plot(*zip(*points, strict=True), color=colour, linewidth=0.9, linestyle=style(results, one), alpha=0.7)
            axes.scatter(mean(saved), mean(scores), 60, marker=marker, color=colour, label=METHODS[one.method])
        axes.set_xlim(left=1)
        axes.set_xlabel("fewer FLOPs than packed dense, times")
        axes.set_ylabel(f"{about.unit}, points")
        axes.set_title(about.title, fontsize=9)
        axes.grid(alpha=0.3)
    legend(figure, loc="outside right upper")
    title(figure, "What pruning costs: filled marks are means over the seeds, tokens really removed", results)
    return figure


def layers(results: TrainingResults) -> Figure:
    """Thresholds, keep ratios and tokens alive by layer: the mean over the seeds, and their range."""
    figure = Figure(figsize=(4.2 * len(results.data_sets) + 1.5, 8), layout="constrained")
    grid = figure.subplots(len(LAYERED), len(results.data_sets), squeeze=False)
    for row, (what, name) in zip(grid, LAYERED.items(), strict=True):
        for axes, data in zip(row, results.data_sets, strict=True):
            for one in results.of(data):
                seeds = [[v if v <= HIGHEST_SCORE else float("nan") for v in values] for values in one.by_layer(what)]
                if seeds and one.method != "dense":
                    by_layer(axes, one, seeds, style(results, one))
            axes.set_ylabel(name)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.3)
            if what == "thresholds":
                axes.set_title(DATA_SETS.get(data, DataSet(data)).title, fontsize=9)
            else:
                axes.set_ylim(0, 1.05)
    for axes in grid[-1]:
        axes.set_xlabel("layer (tokens alive: in its attention; last: at the end)")
    legend(figure, loc="outside right upper")
    title(figure, "Where tokens go: means over the seeds and their range", results)
    return figure


def course(results: TrainingResults) -> Figure:
    """Soft stage: the share of the cost that is expected to be saved, against what the constraint asks at that time."""
    figure = Figure(figsize=(4.2 * len(results.data_sets) + 1.5, 3.5), layout="constrained")
    for axes, data in zip(figure.subplots(1, len(results.data_sets), squeeze=False)[0], results.data_sets, strict=True):
        for one in results.of(data):
            for seed in one.results:
                lines = [line for line in one.log(seed, "soft") if "saved" in line]
                if lines:
                    progress = [line["step"] / lines[-1]["step"] for line in lines]
                    look = {"color": LOOKS[one.method][0], "linestyle": style(results, one)}
                    axes.plot(progress, [line["saved"] for line in lines], label=one.name, linewidth=1.2, **look)
                    axes.plot(progress, [line["target"] for line in lines], color="black", linewidth=0.7, label="asked for")
        axes.set_xlabel("share of the soft stage")
        axes.set_ylabel("share of the cost saved")
        axes.set_title(DATA_SETS.get(data, DataSet(data)).title, fontsize=9)
        axes.grid(alpha=0.3)
    legend(figure, loc="outside right upper")
    title(figure, "Soft stage: expected saving under the constraint", results)
    return figure


def by_layer(axes, one: Trained, seeds: list[list[float]], line: str) -> None:
    colour, marker = LOOKS[one.method]
    values = list(zip(*seeds, strict=True))
    axes.plot(range(len(values)), [mean(v) for v in values], color=colour, marker=marker, markersize=4, linestyle=line, label=one.name)
    axes.fill_between(range(len(values)), [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.15, linewidth=0)


def style(results: TrainingResults, one: Trained) -> str:
    """The same line for the same name on every data set, another for each name of a method."""
    names = list(dict.fromkeys(other.name for other in results.trained if other.method == one.method))
    return LINES[names.index(one.name) % len(LINES)]


def title(figure: Figure, text: str, results: TrainingResults) -> None:
    figure.suptitle(f"{text}\n{results.machines}", fontsize=9)


def draw(folder: Path) -> list[Path]:
    """Write the plots of a folder of kept trainings into it and return their paths; none without trainings."""
    results = TrainingResults(folder)
    paths: list[Path] = []
    makers: tuple[Callable[[TrainingResults], Figure], ...] = (score, layers, course) if results else ()
    for make in makers:
        paths.append(folder / f"{make.__name__}.png")
        # No version inside, so that the same results make the same file.
        make(results).savefig(paths[-1], dpi=100, metadata={"Software": None})
    return paths


if __name__ == "__main__":
    main(draw, __doc__, KEPT, "the kept trainings")
