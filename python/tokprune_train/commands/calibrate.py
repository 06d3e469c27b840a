"""Prune a fine-tuned classifier without training it, and without labels.

  tokprune calibrate MODEL --text FILE --speedup 1.3 --output runs/pruned

Of several shapes of keep ratios, or of thresholds, each made as mild as --speedup allows, the one that leaves the model's answers
nearest on some texts is kept; other texts say how near they are. The weights stay as they are: `tokprune train` keeps more of
the answers at the same speed, and reaches higher ones.
"""

from tokprune_kernels.cli.arguments import add_threads_argument, number, positive_int, use_threads
from tokprune_kernels.cli.output import add_json_argument, folder_to_write, write_json
from tokprune_kernels.cli.pruning_arguments import add_position_argument, add_score_denominator_argument, describe
from tokprune_kernels.cli.texts import TEXT_HELP

HELP = "prune a classifier as it is: no training, no labels"
NEEDS = ("transformers", "datasets")
_METHODS = {"top": "topk", "ltp": "threshold"}


def add_arguments(parser):
    parser.add_argument("model", metavar="MODEL", help="folder or hub id of a classifier")
    parser.add_argument("--speedup", type=number(most=1e6), required=True, metavar="X", help="FLOPs, or time, to be X times less than packed dense")
    parser.add_argument("--output", type=folder_to_write, metavar="FOLDER", help="save the model there, with its pruning in config.json")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", metavar="FILE", help=TEXT_HELP)
    source.add_argument("--data", metavar="SOURCE", help="a data set, as `tokprune train` takes it; labels are not read")
    parser.add_argument("--split", metavar="NAME", help="of --data (default: train, else validation, else test)")
    for what in ("text", "pair"):
        parser.add_argument(f"--{what}-column", metavar="NAME", help="of --data (default: by its usual name)")
    parser.add_argument("--max-length", type=positive_int, metavar="N", help="cut texts at N tokens (default: what the model can take)")
    parser.add_argument("--method", choices=_METHODS, default="top", help="keep ratios (top, default) or thresholds (ltp)")
    add_position_argument(parser, "after_attention", "where tokens leave (default after_attention, which costs less for the same answers)")
    add_score_denominator_argument(parser, "kept")
    parser.add_argument("--latency", action="store_true", help="X times less of this machine's time, measured first, instead of FLOPs")
    parser.add_argument("--batch", type=positive_int, default=32, metavar="N", help="of --latency: texts in a batch (default 32)")
    parser.add_argument("--rows", type=positive_int, default=512, metavar="N", help="texts, of which every second one chooses (default 512)")
    add_threads_argument(parser)
    add_json_argument(parser)


def run(args):
    import tokprune_kernels as tk
    from tokprune_kernels.cli.companions import copy_companions
    from tokprune_kernels.cli.errors import CliError
    from tokprune_kernels.cli.implementation import implementation
    from tokprune_kernels.cli.loading import load_model, load_tokenizer, resolve
    from tokprune_kernels.cli.machine import machine_stamp
    from tokprune_kernels.cli.storing import whole_folder
    from tokprune_kernels.cli.terminal import Progress

    from ..calibration.training_free import calibrate, faithfulness
    from ..data.encoding import Collator
    from ..data.heads import head_of
    from ..data.reading import DataError

    if not args.speedup > 1:
        raise CliError(f"--speedup must be above 1, got {args.speedup:g}")
    runs = implementation()
    use_threads(args)
    machine = machine_stamp()
    name, _ = resolve(args.model)
    model, tokenizer = load_model(name).model, load_tokenizer(name)
    if not hasattr(model, "num_labels") or not hasattr(model, "classifier"):
        raise CliError(f"{args.model!r} has no classification head ({type(model).__name__}), whose answers could be compared")
    collator = Collator(tokenizer.pad_token_id or 0)
    try:
        head_of(model.config)  # refuses heads whose answers are compared in another way
        model = tk.prune_model(model, None)
        rows = _rows(args, tokenizer, model.config)
        how = {
            "criterion": _METHODS[args.method],
            "position": args.position,
            "score_denominator": args.score_denominator,
        }
        cost = _cost(args, model, rows)
        with Progress("calibrating") as progress:
            pruning = calibrate(model, cost, 1 - 1 / args.speedup, rows[::2], collator, progress=progress, **how)
        found = faithfulness(model, pruning, cost, rows[1::2], collator)
    except DataError as error:
        raise CliError(f"unusable data: {error}") from error
    except (ValueError, TypeError) as error:
        raise CliError(str(error)) from error
    model.set_pruning(pruning)
    if args.output is not None:
        with whole_folder(args.output) as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            copy_companions(name, folder)
    write_json(
        args.json,
        {
            "command": "calibrate",
            "model": args.model,
            "speedup": args.speedup,
            "latency": args.latency,
            "pruning": pruning.to_dict(),
            "faithfulness": found.to_dict(),
            "machine": machine,
            "implementation": runs,
        },
    )
    _print(args, pruning, found)
    return 0


def _rows(args, tokenizer, config):
    """Encoded texts without labels, up to --rows of them, evenly spread."""
    from datasets import Dataset
    from tokprune_kernels.cli.batches import longest_allowed
    from tokprune_kernels.cli.texts import read_texts

    from ..calibration.rows import spread
    from ..data.encoding import encode_texts
    from ..data.reading import DataError, pick_split, read_dataset
    from ..data.task import check_texts, find_texts

    if args.text is not None:
        texts = read_texts(args.text)
        text, pair = "text", None if texts.second is None else "text_pair"
        rows = Dataset.from_dict({text: texts.first} | ({pair: texts.second} if pair else {}))
    else:
        _, rows = pick_split(read_dataset(args.data), args.split, ("train", "validation", "test"))
        text, pair = find_texts(rows.column_names, args.text_column, args.pair_column)
        check_texts(rows, text, pair)
    chosen = rows.select(spread(len(rows), args.rows))
    if len(chosen) < 2:
        raise DataError(f"two texts are needed at least, one to choose by and one to judge by; there is {len(chosen)}: give more")
    return encode_texts(chosen, text, pair, tokenizer, longest_allowed(config, tokenizer, args.max_length))


def _cost(args, model, rows):
    from tokprune_kernels.cli.terminal import Progress

    from ..calibration.measure import measure_latency_table
    from ..objectives.cost import FlopsCost, LatencyCost

    if not args.latency:
        return FlopsCost(model.config, args.position)
    with Progress("latency") as progress:
        lengths = [len(row["input_ids"]) for row in rows]
        return LatencyCost(measure_latency_table(model, args.batch, lengths, progress=progress), args.position)


def _print(args, pruning, found):
    from tokprune_kernels.cli.table import format_pairs

    from ..report import tokens_alive_pair

    same = "" if found.same_answers is None else f"{100 * found.same_answers:.2f} % as without pruning, "
    measure = "squared error" if found.same_answers is None else "KL"
    time = f"; predicted time {1 / (1 - found.saved):.2f}x less" if args.latency else ""
    pairs = [
        ("pruning", describe(pruning)),
        ("fewer FLOPs", f"{found.flops_reduction:.2f}x than packed dense{time} (asked for: {args.speedup:g}x)"),
        ("answers", f"{same}{measure} {found.distance:.4f}"),
        tokens_alive_pair(found.tokens_alive),
        ("judged on", f"{found.rows} texts that chose nothing"),
    ]
    if args.output is not None:
        pairs.append(("saved in", args.output))
    print(format_pairs(pairs))
