"""The kept trainings, read: by data set and name, over their seeds."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from presentation import RESULTS

from .records import POINTS_FILE, RESULT, places
from .recipes import DENSE, TRAININGS

KEPT = RESULTS / "training"


@dataclass(frozen=True)
class DataSet:
    """How a data set is called and scored.   metric: key in evaluation.metrics.   unit: how it is called."""

    title: str
    metric: str = "accuracy"
    unit: str = "accuracy"


DATA_SETS = {
    "sst2": DataSet("SST-2, validation rows"),
    "mrpc": DataSet("MRPC, test rows", "f1", "F1"),
    "20news": DataSet("20 Newsgroups, test rows"),
}
METHODS = {
    "dense": "dense",
    "ltp": "LTP",
    "top": "ToP",
    "fixed": "fixed thresholds",
    "topk": "fixed keep ratios (SpAtten)",
}


class Trained:
    """One training over its seeds; results: seed -> what result.json holds."""

    def __init__(self, data: str, name: str, results: dict[int, dict], folders: dict[int, Path]):
        self.data, self.name, self.results, self.folders = data, name, dict(sorted(results.items())), folders
        self._metric = DATA_SETS.get(data, DataSet(data)).metric

    @property
    def first(self) -> dict:
        return next(iter(self.results.values()))

    @property
    def method(self) -> str:
        return self.first["method"]

    @property
    def scores(self) -> dict[int, float]:
        """seed -> score in points (of 100)."""
        return {seed: 100 * result["evaluation"]["metrics"][self._metric] for seed, result in self.results.items()}

    @property
    def spread(self) -> float | None:
        """Standard deviation of the score over the seeds, where there are several."""
        return stdev(self.scores.values()) if len(self.results) > 1 else None

    def saved(self, baseline: str) -> list[float]:
        """For each seed the FLOPs of "packed", "longest" or "maximum" dense over those of the pruned model."""
        return [result["evaluation"]["flops_reduction"][baseline] for result in self.results.values()]

    def behind(self, dense: "Trained | None") -> float | None:
        """Score less that of the dense model in points, mean over the seeds that both have; None where there are none."""
        pairs = [score - dense.scores[seed] for seed, score in self.scores.items() if dense and seed in dense.scores]
        return mean(pairs) if pairs else None

    def by_layer(self, what: str) -> list[list[float]]:
        """For each seed thresholds, keep_ratios or tokens_alive by layer."""
        sources = [result["evaluation"] if what == "tokens_alive" else result["pruning"] for result in self.results.values()]
        return [source[what] for source in sources if source[what] is not None]

    def points(self, seed: int) -> list[tuple[float, float]]:
        """(FLOPs of packed dense over those of the pruned model, score) of the weights at several speeds, in order; none if not taken."""
        file = self.folders[seed] / POINTS_FILE
        evaluations = [point["evaluation"] for point in json.loads(file.read_text(encoding="utf-8"))] if file.is_file() else []
        return sorted((one["flops_reduction"]["packed"], 100 * one["metrics"][self._metric]) for one in evaluations)

    def log(self, seed: int, stage: str) -> list[dict]:
        """The kept lines of a stage's log; none where there was no such stage."""
        file = self.folders[seed] / f"{stage}.jsonl"
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


class TrainingResults:
    """All kept trainings. Data sets and names are in the order of recipes.py, those that it lacks after them."""

    def __init__(self, folder: Path = KEPT):
        found: dict[tuple[str, str], list] = {}
        for place in places(folder):
            found.setdefault((place.data, place.name), []).append(place)
        order = [(data, name) for data, names in TRAININGS.items() for name in names]
        keys = [key for key in order if key in found] + [key for key in found if key not in order]
        self.trained = [self._read(key, found[key]) for key in keys]

    def __bool__(self) -> bool:
        return bool(self.trained)

    @property
    def data_sets(self) -> list[str]:
        return list(dict.fromkeys(one.data for one in self.trained))

    def of(self, data: str) -> list[Trained]:
        return [one for one in self.trained if one.data == data]

    def dense(self, data: str) -> Trained | None:
        return next((one for one in self.of(data) if one.name == DENSE), None)

    @property
    def machines(self) -> str:
        """On what they were trained, with the versions; each of several once."""
        stamps = [result["machine"] for one in self.trained for result in one.results.values()]
        return "; ".join(dict.fromkeys(map(_said, stamps)))

    @staticmethod
    def _read(key: tuple[str, str], found: list) -> Trained:
        results = {place.seed: json.loads((place.folder / RESULT).read_text(encoding="utf-8")) for place in found}
        return Trained(*key, results, {place.seed: place.folder for place in found})


def _said(stamp: dict) -> str:
    """A machine by its GPU, where it has one, else by its processor, and the versions."""
    device = next(iter(stamp.get("gpu", [])), stamp["cpu"]["model"])
    return ", ".join([device, *(f"{name} {stamp['packages'][name]}" for name in ("torch", "transformers"))])
