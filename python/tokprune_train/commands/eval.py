"""Evaluate a classifier on labelled rows, with tokens really removed.

Prints its score, the FLOPs it saves against three baselines (packed dense; padded to the longest of each batch; padded to the
maximum length, as ToP counts), and its time on this machine against packed dense and Hugging Face, checked before it is timed.
"""

from tokprune_kernels.cli.arguments import add_threads_argument, number, positive_int, use_threads
from tokprune_kernels.cli.output import add_json_argument, write_json
from tokprune_kernels.cli.pruning_arguments import add_pruning_arguments, check_pruning_arguments, describe, pruning_from

from ..calibration.rows import CALIBRATION_ROWS, spread
from .data_arguments import add_data_arguments, columns_from

HELP = "score a model on labelled data, and what pruning saves there"
NEEDS = ("transformers", "datasets")
_PRUNED = "pruned"


def add_arguments(parser):
    parser.add_argument("model", metavar="MODEL", help="folder or hub id of a classifier, for example what `train` saved")
    add_data_arguments(parser)
    add_pruning_arguments(parser)
    parser.add_argument(
        "--speedups",
        type=number(most=1e6),
        nargs="+",
        default=(),
        metavar="X",
        help="also score the same weights at other speeds: the pruning made milder or harsher until it takes X times fewer FLOPs than "
        f"packed dense, on up to {CALIBRATION_ROWS} rows of the training split (without one: of the rows evaluated)",
    )
    parser.add_argument("--batch", type=positive_int, default=32, metavar="N", help="texts in a batch (default 32)")
    parser.add_argument(
        "--time-rows", type=positive_int, default=256, metavar="N", help="time on the first N rows (default 256)"
    )
    parser.add_argument("--repeats", type=positive_int, default=5, metavar="N", help="timed rounds (default 5)")
    parser.add_argument("--no-timing", action="store_true", help="score and FLOPs only")
    add_threads_argument(parser)
    add_json_argument(parser)


def run(args):
    from tokprune_kernels.cli.comparison import Comparison
    from tokprune_kernels.cli.errors import CliError
    from tokprune_kernels.cli.implementation import implementation
    from tokprune_kernels.cli.loading import load_model, resolve
    from tokprune_kernels.cli.machine import machine_stamp
    from tokprune_kernels.cli.terminal import Progress

    from ..data.reading import DataError
    from ..evaluation import evaluate
    from ..operating_points import operating_points

    check_pruning_arguments(args)
    runs = implementation()
    use_threads(args)
    machine = machine_stamp()
    name, _ = resolve(args.model)
    loaded = load_model(name)
    if not hasattr(loaded.model, "num_labels") or not hasattr(loaded.model, "classifier"):
        raise CliError(f"{args.model!r} has no classification head ({type(loaded.model).__name__}): train one with `tokprune train`")
    pruning, origin = pruning_from(args, loaded.model.config.num_hidden_layers, loaded.saved_pruning)
    try:
        rows, calibration, collator, max_length = _rows(args, name, loaded.model.config)
        comparison = Comparison(loaded.model, {_PRUNED: pruning})
    except DataError as error:
        raise CliError(f"unusable data: {error}") from error
    except ValueError as error:
        raise CliError(str(error)) from error
    pruned, points = comparison.models[_PRUNED], []
    try:
        with Progress("evaluating") as progress:
            evaluation = evaluate(pruned, rows, collator, max_length, args.batch, progress)
        if args.speedups:
            with Progress("other speeds") as progress:
                points += operating_points(pruned, args.speedups, calibration, rows, collator, max_length, args.batch, progress)
    except ValueError as error:
        raise CliError(str(error)) from error
    measured = None if args.no_timing else _time(args, comparison, rows, collator, max_length)
    result = {
        "command": "eval",
        "model": args.model,
        "data": args.data,
        "pruning": pruning.to_dict() | {"origin": origin},
        "evaluation": evaluation.to_dict(),
        "operating_points": [point.to_dict() for point in points],
        "timing": measured and measured.to_dict(),
        "machine": machine,
        "implementation": runs,
    }
    write_json(args.json, result)
    _print(evaluation, f"{describe(pruning)} ({origin})", points, measured, machine, min(args.time_rows, len(rows)))
    return 0


def _rows(args, name, config):
    """(encoded rows, those to calibrate on, collator, length that texts are cut at)."""
    from tokprune_kernels.cli.batches import longest_allowed
    from tokprune_kernels.cli.loading import load_tokenizer

    from ..data.encoding import Collator, encode, encode_texts
    from ..data.heads import head_of
    from ..data.reading import DataError, pick_split, read_dataset
    from ..data.task import check_texts, find_columns, task_of_head

    tokenizer = load_tokenizer(name)
    max_length = longest_allowed(config, tokenizer, args.max_length)
    splits = read_dataset(args.data)
    _, rows = pick_split(splits, args.eval_split, ("validation", "test", "train"))
    columns = find_columns(rows.column_names, **columns_from(args))
    check_texts(rows, columns.text, columns.pair)
    if not len(rows):
        raise DataError("there are no rows to evaluate on")
    task = task_of_head(head_of(config), rows, columns)
    encoded = encode(rows, task, tokenizer, max_length)
    calibration = encoded[:CALIBRATION_ROWS]
    if args.speedups and "train" in splits:
        training = splits["train"]
        check_texts(training, columns.text, columns.pair)
        calibration = encode_texts(training.select(spread(len(training))), columns.text, columns.pair, tokenizer, max_length)
    return encoded, calibration, Collator(tokenizer.pad_token_id or 0), max_length


def _time(args, comparison, rows, collator, max_length):
    from tokprune_kernels.cli.measurement import measure

    from ..data.encoding import model_inputs

    chosen = rows[: args.time_rows]
    batches = [
        model_inputs(collator(chosen[start : start + args.batch])) for start in range(0, len(chosen), args.batch)
    ]
    return measure(comparison, batches, max_length, args.repeats)


def _print(evaluation, how, points, measured, machine, texts):
    from tokprune_kernels.cli.report import BASELINE_LABELS, speed_table, timing_note
    from tokprune_kernels.cli.table import format_pairs
    from tokprune_kernels.cli.terminal import Terminal

    from ..report import evaluation_pairs, operating_points_table

    print(format_pairs([("pruning", how), *evaluation_pairs(evaluation)]))
    if points:
        print(f"\n{operating_points_table(points)}")
    if measured is not None:
        print()
        print(speed_table(BASELINE_LABELS | {_PRUNED: "packed and pruned"}, measured, texts, Terminal().times))
        print(f"\n{timing_note(measured, machine)}")
