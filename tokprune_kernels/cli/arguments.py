"""Arguments of every kind of command: numbers, lists of them, threads."""

import argparse

from .machine import cores


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
