"""The README's section on trainings: a table for each data set, published numbers beside ours."""

from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from cells import NOTHING, table, times

from .published import LTP, TOP
from .recipes import BASE
from .results import DATA_SETS, KEPT, METHODS, DataSet, Trained, TrainingResults

POINTS = 1.0  # how far below dense counts as "about as good"
PLOTS = {
    "score": "Score against the reduction of FLOPs, with the dense model and one point below it; lines: the same weights at other speeds",
    "layers": "Thresholds, keep ratios and tokens alive by layer",
}
AT_ONCE = (
    "Tokens that ToP ranks out leave right after the attention that ranked them, not at the entry of the next layer as in its paper: the "
    "same answers for fewer FLOPs. After the last attention only [CLS], which the head reads, stays, in ToP as in LTP."
)
IN_README = "benches/results/training"


def training_section(folder: Path = KEPT) -> str:
    """Empty while there are no results."""
    results = TrainingResults(folder)
    if not results:
        return NOTHING
    paragraphs = [
        [
            f"`{BASE}` (6 layers, hidden size 384) fine-tuned, then pruned, by the recipes in `benches/training/recipes.py` "
            f"({results.machines}). Scores are of the weights after the last step, tokens really removed; difference to the "
            "dense model of the same seeds. FLOPs of the whole encoder against the dense one without padding (packed: what "
            "pruning alone saves), padded to the longest of each batch of 32 texts of similar length, and padded to the maximum "
            "in brackets, as ToP counts."
        ],
        *(paragraph for data in results.data_sets for paragraph in data_set(results, data)),
        [headline(results)],
        [
            f"{LTP} ToP counts against padding to the task's maximum; its packed factors here are those divided by what that "
            "padding alone costs, and its MRPC is GLUE's validation rows, not the test rows."
        ],
        [AT_ONCE] if any(one.first["pruning"].get("position") == "after_attention" for one in results.trained if one.method == "top") else [],
        [f"![{text}]({IN_README}/{name}.png)" for name, text in PLOTS.items() if (folder / f"{name}.png").exists()],
    ]
    return "\n\n".join("\n".join(lines) for lines in paragraphs if any(lines))


def data_set(results: TrainingResults, data: str) -> list[list[str]]:
    """A title and a table."""
    about = DATA_SETS.get(data, DataSet(data))
    trained = results.of(data)
    counts = sorted({result["evaluation"]["rows"] for one in trained for result in one.results.values()})
    headers = ["training", "seeds", about.unit, "to dense, points", "asked for", "fewer FLOPs than packed", "than padded to longest",
               "than padded to maximum"]  # fmt: skip
    rows = [row(one, results.dense(data)) for one in trained] + published(data)
    return [[f"{about.title} ({' or '.join(map(str, counts))}):"], table(headers, rows)]


def row(one: Trained, dense: Trained | None) -> list[str]:
    behind = one.behind(dense) if one is not dense else None
    packed, longest, maximum = (times(mean(one.saved(baseline))) for baseline in ("packed", "longest", "maximum"))
    lengths = sorted({result["evaluation"]["max_length"] for result in one.results.values()})
    return [label(one), str(len(one.results)), score(one), NOTHING if behind is None else f"{behind:+.2f}", asked(one), packed, longest,
            f"{maximum} ({' or '.join(map(str, lengths))})"]  # fmt: skip


def label(one: Trained) -> str:
    method = METHODS.get(one.method, one.method)
    return method if one.name == one.method else f"{method}, `{one.name}`"


def score(one: Trained) -> str:
    value = f"{mean(one.scores.values()):.2f}"
    return value if one.spread is None else f"{value} ± {one.spread:.2f}"


def asked(one: Trained) -> str:
    """The constraint, where the method has one."""
    speedup = one.first["arguments"].get("speedup")
    if speedup is None:
        return NOTHING
    return f"{speedup:g}x" + (" in time" if one.first["arguments"]["latency"] else "")


def published(data: str) -> list[list[str]]:
    if data not in TOP:
        return []
    theirs = TOP[data]
    return [[f"ToP as published, {theirs.model}", NOTHING, f"{theirs.score}", NOTHING, NOTHING,
             f"about {theirs.factor / theirs.padding:.1f}x", NOTHING, f"{times(theirs.factor)} ({theirs.maximum})"]]  # fmt: skip


def headline(results: TrainingResults) -> str:
    """The most that is saved on each data set without falling further than POINTS below dense, trainings and their other speeds."""
    best = []
    for data in results.data_sets:
        dense = results.dense(data)
        near = [
            (saved, label(one) + where)
            for one in results.of(data)
            if one is not dense
            for saved, behind, where in speeds(one, dense)
            if behind >= -POINTS
        ]
        if near:
            saved, what = max(near)
            best.append(f"{times(saved)} on {data} ({what})")
    if not best:
        return NOTHING
    return f"Most FLOPs saved against packed at no more than {POINTS:g} point below dense: {', '.join(best)}."


def speeds(one: Trained, dense: Trained | None) -> Iterator[tuple[float, float, str]]:
    """(FLOPs saved, points to dense, how it is said): of a training, and of its weights at other speeds; means over the seeds, over those that
    were scored at other speeds there."""
    if (behind := one.behind(dense)) is None:
        return
    yield mean(one.saved("packed")), behind, ""
    points = {seed: found for seed in one.scores if seed in dense.scores and (found := one.points(seed))}
    for point in zip(*points.values(), strict=True):
        scores = [score - dense.scores[seed] for (_, score), seed in zip(point, points, strict=True)]
        yield mean(saved for saved, _ in point), mean(scores), " with its pruning scaled"
