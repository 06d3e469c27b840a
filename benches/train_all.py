"""Train everything in training/recipes.py and keep the results: python benches/train_all.py --work FOLDER --texts FOLDER

Each training is one `tokprune train`, dense models first, in WORK/DATA/NAME-seedK; finished ones are skipped, so that the same
command goes on after an interruption. What is small goes to results/training/DATA/NAME-seedK, weights stay in WORK.
--collect FOLDER trains nothing and keeps the finished trainings of such a folder, however they were started; --points FOLDER first
scores those that prune at other speeds, without more training.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from tokprune_kernels.cli.arguments import add_threads_argument
from training.records import POINTS_FILE, RESULT, Place, differences, keep, places
from training.recipes import BASE, DENSE, SEEDS, SPEEDUPS, TRAININGS, Recipe, recipe, recipes
from training.results import KEPT


def place_of(one: Recipe, seed: int, work: Path) -> Place:
    return Place(work / one.data / f"{one.name}-seed{seed}", one.data, one.name, seed)


def command(one: Recipe, seed: int, work: Path, texts: Path, base: str, threads: int | None) -> list[str]:
    """Of one training; a pruned one starts from the dense model of its seed."""
    dense = place_of(recipe(one.data, DENSE), seed, work).folder
    options = {
        "--model": base if one.method == DENSE else str(dense / "model"),
        "--data": str(texts / one.data),
        "--output": str(place_of(one, seed, work).folder),
        "--seed": str(seed),
    }
    if one.method != DENSE:
        options["--answers"] = str(dense / "answers")
    if threads is not None:
        options["--threads"] = str(threads)
    given = [word for option in options.items() for word in option]
    return [sys.executable, "-m", "tokprune_kernels.cli.main", "train", *one.arguments, *given, "--resume"]


def wanted(data_sets: list[str] | None, names: list[str] | None) -> list[Recipe]:
    """The recipes asked for, and the dense ones that they start from, those first."""
    chosen = recipes(data_sets, names)
    dense = [recipe(data, DENSE) for data in dict.fromkeys(one.data for one in chosen)]
    return dense + [one for one in chosen if one.method != DENSE]


def collect(place: Place, results: Path) -> None:
    """Keep a finished training, and say what in it is not as the recipe has it."""
    kept = keep(place, results)
    print(f"kept {place.label}")
    for difference in differences(place.data, place.name, place.seed, json.loads((kept / RESULT).read_text())):
        print(f"  not as in recipes.py: {difference}")


def points_command(place: Place, texts: Path, threads: int | None) -> list[str]:
    """Of scoring a finished training at other speeds, on texts cut as it was trained."""
    arguments = json.loads((place.folder / RESULT).read_text(encoding="utf-8"))["arguments"]
    options = ["--data", str(texts / place.data), "--max-length", str(arguments["max_length"]), "--no-timing"]
    if threads is not None:
        options += ["--threads", str(threads)]
    options += ["--json", str(place.folder / POINTS_FILE), "--speedups", *map(str, SPEEDUPS[place.data])]
    return [sys.executable, "-m", "tokprune_kernels.cli.main", "eval", str(place.folder / "model"), *options]


def run(args: argparse.Namespace) -> int:
    for one in wanted(args.data, args.only):
        for seed in args.seeds:
            place = place_of(one, seed, args.work)
            if not (place.folder / RESULT).is_file():
                line = command(one, seed, args.work, args.texts, args.base, args.threads)
                print(" ".join(["tokprune", *line[3:]]), flush=True)
                if code := subprocess.run(line).returncode:
                    print(f"{place.label} failed: nothing after it was run", file=sys.stderr)
                    return code
            collect(place, args.out)
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--work", type=Path, metavar="FOLDER", help="train, with models and checkpoints here")
    what.add_argument("--collect", type=Path, metavar="FOLDER", help="only keep what is finished here")
    what.add_argument("--points", type=Path, metavar="FOLDER", help="score what is finished here at other speeds, and keep it")
    parser.add_argument("--texts", type=Path, metavar="FOLDER", help=f"has a data set of labelled texts each in {', '.join(TRAININGS)}")
    parser.add_argument("--data", nargs="+", metavar="DATA", help="only these data sets")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only the trainings of these names, and the dense models they need")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, metavar="K", help=f"default {' '.join(map(str, SEEDS))}")
    parser.add_argument("--base", default=BASE, metavar="MODEL", help=f"folder or hub id of the BERT to start from (default {BASE})")
    add_threads_argument(parser)
    parser.add_argument("--out", type=Path, default=KEPT, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.collect is None and args.texts is None:
        parser.error("--work and --points need --texts, the folder that the data sets are in")
    try:
        if args.work is not None:
            return run(args)
        for place in places(args.collect or args.points):
            if place.data in (args.data or [place.data]) and place.name in (args.only or [place.name]):
                if args.points is not None and place.name != DENSE:
                    if code := subprocess.run(points_command(place, args.texts, args.threads)).returncode:
                        return code
                collect(place, args.out)
    except ValueError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
