"""Import a pruned checkpoint of a paper's official code.

  tokprune import ltp FOLDER --output runs/ltp --max-length 128
  tokprune import top FOLDER --output runs/top --layers 2,3,4,5,6,7,8,9,10,11

The output folder gets the model under the names of transformers, what was learned of pruning in its config.json, and the
tokenizer's files. Files are read as tensors only; no code in them is run.
"""

import argparse

from tokprune_kernels.cli.arguments import positive_int
from tokprune_kernels.cli.output import add_json_argument, folder_to_write, write_json
from tokprune_kernels.cli.pruning_arguments import describe

HELP = "import a pruned checkpoint of LTP's or ToP's official code"
NEEDS = ("transformers",)
_METHODS = {
    "ltp": "a folder with model_type ltp (github.com/kssteven418/LTP): learned thresholds",
    "top": "a folder with zs.pt (github.com/microsoft/Moonlit, ToP): masks over ranks as keep ratios",
}


def add_arguments(parser):
    methods = parser.add_subparsers(title="methods", metavar="METHOD", dest="method", required=True)
    for method, help_text in _METHODS.items():
        sub = methods.add_parser(method, help=help_text, description=help_text)
        sub.add_argument("folder", metavar="FOLDER", help="what the official code saved")
        sub.add_argument("--output", type=folder_to_write, required=True, metavar="FOLDER", help="for the imported model; another folder")
        _ADDERS[method](sub)
        add_json_argument(sub)


def _add_ltp(parser):
    parser.add_argument(
        "--max-length",
        type=positive_int,
        metavar="N",
        help="length that texts were padded to in training, over which importance averages (needed unless config.json has max_seq_length)",
    )


def _add_top(parser):
    parser.add_argument(
        "--layers", type=_layer_list, required=True, metavar="L,L,...", help="layers at whose entry tokens leave, from 0: the training's --prune_location"
    )
    parser.add_argument(
        "--as-shares",
        action="store_true",
        help="where the bins that are on are not the first ones, keep as many tokens, those that rank highest (else an error)",
    )


_ADDERS = {"ltp": _add_ltp, "top": _add_top}


def _layer_list(text):
    if not all(part.isascii() and part.isdigit() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of layers such as 2,3,4")
    return [int(part) for part in text.split(",")]


def run(args):
    from pathlib import Path

    import tokprune_kernels as tk
    from tokprune_kernels.cli.errors import CliError
    from tokprune_kernels.cli.storing import whole_folder
    from tokprune_kernels.cli.table import format_pairs

    from ..importers.checkpoint import copy_tokenizer
    from ..importers.ltp import import_ltp
    from ..importers.top import import_top

    if not Path(args.folder).is_dir():
        raise CliError(f"{args.folder!r} is no folder: download the checkpoint first")
    if Path(args.output).resolve() == Path(args.folder).resolve():
        raise CliError("--output must be another folder: the checkpoint itself is left as it is")
    try:
        if args.method == "ltp":
            imported = import_ltp(args.folder, args.max_length)
        else:
            imported = import_top(args.folder, args.layers, args.as_shares)
    except (ValueError, TypeError) as error:
        raise CliError(f"cannot import {args.folder!r}: {error}") from error
    with whole_folder(args.output) as beside:
        imported.model.save_pretrained(beside)
        tokenizer = copy_tokenizer(args.folder, beside)
    pruning = tk.PruningConfig.from_dict(imported.model.config.pruning)
    result = {
        "command": "import",
        "method": args.method,
        "folder": args.folder,
        "model": type(imported.model).__name__,
        "pruning": pruning.to_dict(),
        "left_out": list(imported.left_out),
        "tokenizer": tokenizer,
        "output": args.output,
    }
    write_json(args.json, result)
    pairs = [("model", result["model"]), ("pruning", describe(pruning))]
    if imported.left_out:
        pairs.append(("left out", f"{len(imported.left_out)} tensors that only quantisation needs"))
    pairs.append(("tokenizer", ", ".join(tokenizer) or "none: the folder has no files of one"))
    print(format_pairs([*pairs, ("saved in", args.output)]))
    return 0
