"""The arguments that say how to prune, shared by every command that runs a pruned model."""

import argparse
from pathlib import Path

from ..pruning_config import DENOMINATORS, DENOMINATORS_SAID, POSITIONS, PruningConfig
from .arguments import number_list, positive_int
from .errors import CliError, UsageError
from .lines import parse_json

DEFAULT_KEEP_RATIO = 0.85
DEFAULT_HELP = (
    "Without --pruning, --keep-ratios or --thresholds, and where the checkpoint has no pruning of its own,\n"
    f"the keep ratio is 1.0 at the first layer and {DEFAULT_KEEP_RATIO} of the tokens alive at each later one.\n"
    "That is a stand-in to measure speed with, not fitted to any model; the output says when it is used."
)
_OPTIONS = ("position", "score_denominator")


def score_denominator(text: str) -> str | int:
    """Parse what PruningConfig takes as `score_denominator` (argparse type). Raises argparse.ArgumentTypeError."""
    if text in DENOMINATORS:
        return text
    try:
        return positive_int(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"must be {DENOMINATORS_SAID}, got {text!r}") from None


def add_position_argument(parser, default: str | None, help_text: str) -> None:
    """Add --position."""
    parser.add_argument("--position", choices=POSITIONS, default=default, help=help_text)


def add_score_denominator_argument(parser, default: str | None, of: str = "") -> None:
    """Add --score-denominator; of: begins its help."""
    help_text = f"{of}what importance is divided by: kept (default), sqrt_kept (spares long texts), initial, or a number"
    parser.add_argument("--score-denominator", type=score_denominator, default=default, metavar="D", help=help_text)


def add_pruning_arguments(parser) -> None:
    """Add --pruning, --keep-ratios and --thresholds (at most one of them), and --position and --score-denominator for the last two."""
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
        help="ToP: one share in (0, 1] a layer, of the tokens alive that enter it; the first must be 1.0, but for --position after_attention",
    )
    group.add_argument(
        "--thresholds",
        type=number_list,
        metavar="T,T,...",
        help="LTP: one importance threshold a layer, 0 = none pruned there",
    )
    position = "of --thresholds and --keep-ratios: where tokens leave (default after_attention for thresholds, before_layer for ratios)"
    add_position_argument(parser, None, position)
    add_score_denominator_argument(parser, None, "of --thresholds and --keep-ratios: ")


def check_pruning_arguments(args) -> None:
    """Raise as `pruning_from` does what can be said before a model is loaded."""
    _given(args)


def pruning_from(args, num_layers: int, saved: dict | None):
    """Return (PruningConfig, where it comes from) for a model of `num_layers` layers whose checkpoint says `saved`.

    Raises UsageError for values that make no PruningConfig for this model, CliError for a file that cannot be read.
    """
    config, origin = _given(args) or _not_given(num_layers, saved)
    try:
        config.validate(num_layers)
    except ValueError as error:
        raise UsageError(f"pruning: {error}") from error
    return config, origin


def _given(args) -> tuple[PruningConfig, str] | None:
    """What the arguments say, and which of them; None where they say nothing."""
    options = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    if options and args.keep_ratios is None and args.thresholds is None:
        given = " and ".join(f"--{name.replace('_', '-')}" for name in options)
        where = "the file of --pruning says all" if args.pruning is not None else "give one of these as well"
        raise UsageError(f"{given} belongs to --thresholds or --keep-ratios: {where}")
    try:
        if args.pruning is not None:
            return PruningConfig.from_dict(_read_pruning(args.pruning)), f"from {args.pruning}"
        if args.keep_ratios is not None:
            return PruningConfig.top(keep_ratios=args.keep_ratios, **options), "from --keep-ratios"
        if args.thresholds is not None:
            return PruningConfig.ltp(thresholds=args.thresholds, **options), "from --thresholds"
    except (ValueError, TypeError) as error:
        raise UsageError(f"pruning: {error}") from error
    return None


def _not_given(num_layers: int, saved: dict | None) -> tuple[PruningConfig, str]:
    """What the checkpoint says, or the stand-in."""
    if saved is None:
        ratios = [1.0] + [DEFAULT_KEEP_RATIO] * (num_layers - 1)
        return PruningConfig.top(keep_ratios=ratios), "the default, as none was given: not fitted to this model"
    try:
        return PruningConfig.from_dict(saved), "from the checkpoint"
    except (ValueError, TypeError) as error:
        raise UsageError(f"pruning: {error}") from error


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
        fields = parse_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CliError(f"cannot read the pruning file {path!r}: {error}") from error
    if not isinstance(fields, dict):
        raise CliError(
            f"the pruning file {path!r} holds a {type(fields).__name__}, not an object of PruningConfig fields"
        )
    return fields["pruning"] if isinstance(fields.get("pruning"), dict) else fields
