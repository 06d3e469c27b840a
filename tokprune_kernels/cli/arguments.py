"""Arguments of every kind of command: numbers, lists of them, threads."""

import argparse
import math
from collections.abc import Callable

from .machine import cores


def number_list(text: str) -> tuple[float, ...]:
    """Parse "1.0,0.9,0.8" (argparse type). Raises argparse.ArgumentTypeError."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1.0,0.9,0.8") from None


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return an argparse type for whole numbers in this range, which raises argparse.ArgumentTypeError for all others."""
    said = f"of at least {least}" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        digits = text.isascii() and text.isdigit()
        if digits and len(text) > 18:  # more than torch can count to, and the longest are more than Python reads
            raise argparse.ArgumentTypeError(f"{text[:18]}... is too large a number")
        if digits and least <= int(text) <= (math.inf if most is None else most):
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {said}")

    return parse


positive_int = whole_number(1)


def number(least: float = -math.inf, most: float = math.inf, above: float = -math.inf) -> Callable[[str], float]:
    """Return an argparse type for finite numbers in [least, most] that are more than `above`; as `whole_number`."""
    bounds = [(f"from {least:g}", least), (f"above {above:g}", above), (f"up to {most:g}", most)]
    said = " ".join(words for words, bound in bounds if math.isfinite(bound))

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and least <= value <= most and value > above:
            return value
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number {said}".rstrip())

    return parse


def thread_count(text: str) -> int:
    """Parse a number of threads, one a core at most (argparse type): far more of them end in a crash of OpenMP's.

    Raises argparse.ArgumentTypeError.
    """
    count, most = positive_int(text), cores()
    if count > most:
        raise argparse.ArgumentTypeError(f"{count} threads are more than the {most} cores that this process may use: give 1 to {most}")
    return count


def add_threads_argument(parser, of: str = "") -> None:
    """Add --threads; of: begins its help's second half."""
    parser.add_argument("--threads", type=thread_count, metavar="N", help=f"CPU threads{of} (default: torch's own choice)")


def use_threads(args) -> None:
    """Have torch, and so every kernel, run on --threads, where it was given."""
    import torch

    if args.threads is not None:
        torch.set_num_threads(args.threads)
