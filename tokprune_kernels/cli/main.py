"""Entry point of `tokprune`: finds the subcommands, parses the arguments, turns failures into exit codes.

A subcommand is one module in `tokprune_kernels/cli/commands/`, named as the subcommand, with three names:
`HELP` (one line), `add_arguments(parser)` and `run(args) -> int` (the exit code). Nothing else has to be edited. Other
packages add theirs by an entry point in the group "tokprune.commands", which is such a module (the training side does).
One that needs packages of an extra names them in `NEEDS`, and is not run without them. Command modules import torch and
transformers inside `run`, never at the top, so that `--help` stays quick.
"""

import argparse
import functools
import importlib
import importlib.metadata
import os
import pkgutil
import sys

from .._extras import MissingPackage, needing
from . import commands
from .errors import CliError
from .terminal import never_fail_to_print, plain


class _OneLineParser(argparse.ArgumentParser):
    """An argument parser that reports a usage error as one line (argparse prints the whole usage before it)."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {plain(message)} (see {self.prog} --help)\n")


def build_parser():
    """Return the parser of `tokprune` with one subparser for each module in `commands`."""
    from .._version import __version__

    parser = _OneLineParser(prog="tokprune", description="Token pruning for BERT that really removes tokens.")
    parser.add_argument("--version", action="version", version=f"tokprune-kernels {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name, command in sorted(_commands().items()):
        subparser = subparsers.add_parser(
            name, help=command.HELP, description=command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=functools.partial(_run, command))
    return parser


def _run(command, args):
    """Run a command where the packages that it needs are there; raises MissingPackage, before any work, where not."""
    with needing("this command", getattr(command, "NEEDS", ())):
        return command.run(args)


def _commands():
    """Name -> module of every subcommand."""
    own = {
        module.name: importlib.import_module(f"{commands.__name__}.{module.name}")
        for module in pkgutil.iter_modules(commands.__path__)
    }
    return {entry.name: entry.load() for entry in importlib.metadata.entry_points(group="tokprune.commands")} | own


def main(argv=None):
    """Run `tokprune` with the arguments `argv` (default: those of the process) and return the exit code.

    0 only on success, 1 where the work failed, 2 where the arguments were wrong, 130 where it was interrupted.
    """
    never_fail_to_print()
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as leaving:  # --help, --version and usage errors: argparse has printed what there is to say
        return leaving.code if isinstance(leaving.code, int) else 0
    try:
        return args.run(args)
    except (CliError, MissingPackage) as error:
        print(f"tokprune {args.command}: error: {plain(str(error))}", file=sys.stderr)
        return getattr(error, "exit_code", CliError.exit_code)
    except MemoryError:
        print(f"tokprune {args.command}: error: not enough memory for that: smaller batches need less", file=sys.stderr)
        return CliError.exit_code
    except KeyboardInterrupt:
        print(f"tokprune {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `tokprune env | head -1`: the reader has left, that is no failure of ours to report
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # files and folders that cannot be read or written: what the system says is the reason
        print(f"tokprune {args.command}: error: {plain(' '.join(str(error).split()))}", file=sys.stderr)
        return CliError.exit_code


if __name__ == "__main__":
    sys.exit(main())
