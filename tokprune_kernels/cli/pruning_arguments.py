"""The arguments that say how to prune, shared by every command that runs a pruned model."""

import argparse
import json
from pathlib import Path

from .errors import CliError, UsageError

DEFAULT_KEEP_RATIO = 0.85
DEFAULT_HELP = (
    "Without --pruning, --keep-ratios or --thresholds, and where the checkpoint has no pruning of its own,\n"
    f"the keep ratio is 1.0 at the first layer and {DEFAULT_KEEP_RATIO} of the tokens alive at each later one.\n"
    "That is a stand-in to measure speed with, not fitted to any model; the output says when it is used."
)


def number_list(text: str) -> tuple[float, ...]:
    """Parse "1.0,0.9,0.8" (argparse type). Raises argparse.ArgumentTypeError."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1.0,0.9,0.8") from None


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1 (argparse type). Raises argparse.ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def add_pruning_arguments(parser) -> None:
    """Add --pruning, --keep-ratios and --thresholds (at most one of them may be given)."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--pruning",
        metavar="FILE",
        help="JSON file of a PruningConfig (PruningConfig.to_dict), or a config.json that has one",
    )
    group.add_argument(
        "--keep-ratios",
        type=number_list,
        metavar="R,R,...",
        help="ToP: one share in (0, 1] a layer, of the tokens alive that enter it; the first must be 1.0",
    )
    group.add_argument(
        "--thresholds",
        type=number_list,
        metavar="T,T,...",
        help="LTP: one importance threshold a layer, 0 = none pruned there",
    )


def pruning_from(args, num_layers: int, saved: dict | None):
    """Return (PruningConfig, where it comes from) for a model of `num_layers` layers whose checkpoint says `saved`.

    Raises UsageError for values that make no PruningConfig for this model, CliError for a file that cannot be read.
    """
    from tokprune_kernels import PruningConfig

    try:
        if args.pruning is not None:
            config, origin = PruningConfig.from_dict(_read_pruning(args.pruning)), f"from {args.pruning}"
        elif args.keep_ratios is not None:
            config, origin = PruningConfig.top(keep_ratios=args.keep_ratios), "from --keep-ratios"
        elif args.thresholds is not None:
            config, origin = PruningConfig.ltp(thresholds=args.thresholds), "from --thresholds"
        elif saved is not None:
            config, origin = PruningConfig.from_dict(saved), "from the checkpoint"
        else:
            ratios = [1.0] + [DEFAULT_KEEP_RATIO] * (num_layers - 1)
            config, origin = (
                PruningConfig.top(keep_ratios=ratios),
                "the default, as none was given: not fitted to this model",
            )
        config.validate(num_layers)
    except (ValueError, TypeError) as error:
        raise UsageError(f"pruning: {error}") from error
    return config, origin


def describe(config) -> str:
    """Return a PruningConfig as one line, for people."""
    if config.is_dense:
        return "nothing pruned"
    name = "thresholds" if config.criterion == "threshold" else "keep ratios"
    values = " ".join(f"{value:g}" for value in config.values)
    of = "" if config.count_first else ", of the tokens past the first"
    return f"{name} {values} ({config.position.replace('_', ' ')}, denominator {config.score_denominator}{of})"


def _read_pruning(path: str) -> dict:
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CliError(f"cannot read the pruning file {path!r}: {error}") from error
    if not isinstance(fields, dict):
        raise CliError(
            f"the pruning file {path!r} holds a {type(fields).__name__}, not an object of PruningConfig fields"
        )
    return fields["pruning"] if isinstance(fields.get("pruning"), dict) else fields
