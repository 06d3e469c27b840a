"""Failures that the command line reports as one line, with the exit code that goes with each."""


class CliError(Exception):
    """Something went wrong that the user can understand from one line; exit code 1."""

    exit_code = 1


class UsageError(CliError):
    """The command was called with arguments that make no sense; exit code 2."""

    exit_code = 2
