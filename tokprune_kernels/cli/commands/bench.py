"""Compare a model's speed: Hugging Face padded (sdpa), ours packed and dense, ours packed and pruned.

All contenders share the same weights, see the same batches and run in turns in one process. The
outputs are compared first, and nothing is timed when they are wrong: packed dense must equal Hugging
Face, the kept tokens must be those that the pruning asks for, and the pruned states must equal plain
PyTorch that drops the same tokens.
"""

from ..arguments import add_threads_argument, positive_int, use_threads
from ..output import add_json_argument, write_json
from ..pruning_arguments import DEFAULT_HELP, add_pruning_arguments, check_pruning_arguments, describe, pruning_from
from ..texts import TEXT_HELP

HELP = "time a model dense and pruned against Hugging Face"
NEEDS = ("transformers",)
_PRUNED = "pruned"


def add_arguments(parser):
    parser.epilog = DEFAULT_HELP
    parser.add_argument("model", metavar="MODEL", help="folder or hub id of a BERT checkpoint")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", metavar="FILE", help=f"{TEXT_HELP}; batches follow the order of the file")
    source.add_argument(
        "--lengths",
        type=_lengths,
        metavar="N,N,...",
        help="random tokens of these lengths instead: fine for dense speed and keep ratios; thresholds want real text",
    )
    parser.add_argument(
        "--max-texts",
        type=positive_int,
        default=128,
        metavar="N",
        help="use the first N texts, or pairs, of the file (default 128)",
    )
    parser.add_argument(
        "--max-length", type=positive_int, metavar="N", help="cut texts at N tokens (default: what the model can take)"
    )
    parser.add_argument(
        "--batch",
        type=positive_int,
        metavar="N",
        help="texts in a batch (default: 32, with --lengths one for each length)",
    )
    add_threads_argument(parser, " of all contenders")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="of all contenders (default float32)"
    )
    parser.add_argument("--repeats", type=positive_int, default=10, metavar="N", help="timed rounds (default 10)")
    add_pruning_arguments(parser)
    add_json_argument(parser)


def _lengths(text):
    return [positive_int(part) for part in text.split(",")]


def run(args):
    from ..batches import describe_lengths
    from ..comparison import Comparison
    from ..errors import CliError
    from ..implementation import implementation
    from ..loading import load_model, resolve
    from ..machine import machine_stamp
    from ..measurement import measure

    check_pruning_arguments(args)
    runs = implementation()  # first: kernels that cannot be loaded are said before minutes of loading a model
    use_threads(args)
    machine = machine_stamp()
    name, source = resolve(args.model)
    loaded = load_model(name, args.dtype)
    pruning, origin = pruning_from(args, loaded.model.config.num_hidden_layers, loaded.saved_pruning)
    batches, max_length, pairs = _batches(args, name, loaded.model.config)
    try:
        comparison = Comparison(loaded.model, {_PRUNED: pruning})
    except ValueError as error:
        raise CliError(f"cannot prune {args.model!r}: {error}") from error

    measured = measure(comparison, batches, max_length, args.repeats)
    result = {
        "command": "bench",
        "model": {
            "name": args.model,
            "source": source,
            "dtype": args.dtype,
            "layers": loaded.model.config.num_hidden_layers,
            "hidden_size": loaded.model.config.hidden_size,
            "class": type(loaded.model).__name__,
        },
        "input": {"source": args.text or "random tokens", "pairs": pairs, "max_length": max_length} | describe_lengths(batches),
        "pruning": pruning.to_dict() | {"origin": origin},
        "machine": machine,
        "implementation": runs,
    } | measured.to_dict()
    write_json(args.json, result)
    _print(result, describe(pruning), measured)
    return 0


def _batches(args, name, config):
    """Return (batches, number of tokens at which texts are cut, whether they are pairs)."""
    from ..batches import encode_texts, longest_allowed, random_batch
    from ..loading import load_tokenizer
    from ..texts import read_texts

    if args.lengths is not None:
        max_length = longest_allowed(config, wanted=args.max_length)
        return [random_batch(args.lengths, args.batch or len(args.lengths), config, max_length)], max_length, False
    texts = read_texts(args.text, args.max_texts)
    tokenizer = load_tokenizer(name)
    max_length = longest_allowed(config, tokenizer, args.max_length)
    return encode_texts(tokenizer, texts, args.batch or 32, max_length, config), max_length, texts.second is not None


def _print(result, how_pruned, measured):
    from ..report import BASELINE_LABELS, speed_table, timing_note
    from ..table import format_pairs
    from ..terminal import Terminal

    times = Terminal().times
    print(format_pairs(_head(result, how_pruned)))
    print()
    labels = BASELINE_LABELS | {_PRUNED: "packed and pruned"}
    print(speed_table(labels, measured, result["input"]["texts"], times))
    print(f"\n{timing_note(measured, result['machine'])}")
    gain, padded_to = measured.factors[_PRUNED], f"padded to {result['input']['max_length']}"
    total, pruning = gain["time_vs_padded"], gain["time_vs_packed"]
    print(
        f"pruned against Hugging Face: {total:.2f}{times} faster = {total / pruning:.2f}{times} (packing, kernels) "
        f"{times} {pruning:.2f} (pruning)"
    )
    print(
        f"encoder FLOPs, pruned against dense: {gain['flops_vs_packed']:.2f}{times} fewer than packed, "
        f"{gain['flops_vs_padded']:.2f}{times} than padded to each batch's longest, "
        f"{measured.flops[padded_to] / measured.flops[_PRUNED]:.2f}{times} than {padded_to}"
    )


def _head(result, how_pruned):
    model, data, machine, checks = result["model"], result["input"], result["machine"], result["checks"]
    sizes = f"{model['class']}, {model['layers']} layers, {model['hidden_size']} wide, {model['dtype']}"
    lengths = f"{data['shortest']} to {data['longest']} tokens, {100 * data['padding_share']:.0f} % padding"
    versions = f"torch {machine['packages']['torch']}, transformers {machine['packages']['transformers']}"
    what = "pairs of texts" if data["pairs"] else "texts"
    return [
        ("model", f"{model['name']}, from {model['source']}\n{sizes}"),
        ("input", f"{data['texts']} {what} ({data['source']}), batches of {data['batch_size']}, {lengths}"),
        ("pruning", f"{how_pruned}\n{result['pruning']['origin']}"),
        ("machine", f"{machine['cpu']['model']}, {machine['threads']} threads, {versions}"),
        ("kernels", result["implementation"]["summary"]),
        ("checks", f"{len(checks)} passed; {checks[0]['name']}: {checks[0]['detail']}"),
    ]
