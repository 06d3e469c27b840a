"""Keeping a training: its result without the names of this machine's folders, and its logs, thinned. Weights are not kept."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .recipes import DENSE, TRAININGS, recipe

RESULT, POINTS_FILE = "result.json", "points.json"
LOG_LINES = 200
# Of this run on this machine; they do not belong to the recipe.
_NOT_RECIPE = ("model", "data", "output", "seed", "resume", "checkpoints", "threads", "answers")
_NAME = re.compile(r"(.+)-seed(\d+)")


@dataclass(frozen=True)
class Place:
    """The folder DATA/NAME-seedK of one training."""

    folder: Path
    data: str
    name: str
    seed: int

    @property
    def label(self) -> str:
        return f"{self.data}/{self.folder.name}"


def places(root: Path) -> Iterator[Place]:
    """The finished trainings under a folder, in alphabetical order."""
    for file in sorted(root.glob(f"*/*/{RESULT}")):
        if match := _NAME.fullmatch(file.parent.name):
            yield Place(file.parent, file.parents[1].name, match[1], int(match[2]))


def keep(place: Place, results: Path) -> Path:
    """Copy what is small of a finished training to RESULTS/DATA/NAME-seedK; an earlier copy is replaced.

    Raises ValueError where the result is of another seed than its folder says.
    """
    result = json.loads((place.folder / RESULT).read_text(encoding="utf-8"))
    arguments = result["arguments"]
    if arguments["seed"] != place.seed:
        raise ValueError(f"{place.label}: the folder says seed {place.seed}, its result {arguments['seed']}: rename one of them")
    arguments.pop("answers", None)
    arguments |= {"model": _last_name(arguments["model"]), "data": place.data, "output": place.folder.name}
    target = results / place.data / place.folder.name
    target.mkdir(parents=True, exist_ok=True)
    for old in target.iterdir():
        old.unlink()
    _write(target / RESULT, [json.dumps(result, indent=2)])
    if (place.folder / POINTS_FILE).is_file():  # what `tokprune eval --json` wrote
        points = json.loads((place.folder / POINTS_FILE).read_text(encoding="utf-8"))["operating_points"]
        _write(target / POINTS_FILE, [json.dumps(points, indent=1)])
    for log in sorted(place.folder.glob("*/log.jsonl")):
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        _write(target / f"{log.parent.name}.jsonl", [json.dumps(_rounded(line)) for line in thinned(lines)])
    return target


def thinned(lines: list, most: int = LOG_LINES) -> list:
    """At most so many lines, evenly spaced, the first and the last among them."""
    if len(lines) <= most:
        return lines
    return [lines[round(index * (len(lines) - 1) / (most - 1))] for index in range(most)]


def differences(data: str, name: str, seed: int, result: dict) -> list[str]:
    """What a kept result was not made as recipes.py says: nothing where `train_all.py` would make the same."""
    if name not in TRAININGS.get(data, ()):
        return [f"recipes.py has no {name!r} for {data!r}"]
    arguments, wanted = result["arguments"], _parsed(recipe(data, name).arguments)
    found = [
        f"{option} was {arguments[option]!r}, recipes.py says {value!r}"
        for option, value in wanted.items()
        if option in arguments and arguments[option] != value
    ]
    start = f"{DENSE}-seed{seed}"
    if name != DENSE and arguments["model"] != start:
        found.append(f"it started from {arguments['model']!r}, not from {start!r}")
    return found


def _parsed(arguments: tuple[str, ...]) -> dict:
    """Every option of `tokprune train` with its value under these arguments, defaults included, as JSON has them."""
    from tokprune_kernels.cli.main import build_parser

    parsed = vars(build_parser().parse_args(["train", *arguments, "--model", "", "--data", "", "--output", "here"]))
    return json.loads(json.dumps({name: value for name, value in parsed.items() if name not in ("run", "command", *_NOT_RECIPE)}))


def _last_name(source: str) -> str:
    """What a folder or hub id is called, without where it is: "dense-seed0" of "/runs/sst2/dense-seed0/model"."""
    return next(part for part in reversed(re.split(r"[/\\]", source)) if part not in ("", "model"))


def _rounded(line: dict) -> dict:
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in line.items()}


def _write(file: Path, lines: list[str]) -> None:
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
