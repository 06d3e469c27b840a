"""The command table, help, and exit codes that all commands share."""

import subprocess
import sys

import pytest

from tokprune_kernels import __version__
from tokprune_kernels.cli import commands, main
from tokprune_kernels.cli.errors import CliError, UsageError


def test_help_lists_every_command(tokprune):
    code, out, _ = tokprune("--help")
    assert code == 0
    for name in ("bench", "demo", "env"):
        assert f"\n    {name} " in out


@pytest.mark.parametrize("name", ["bench", "demo", "env"])
def test_each_command_explains_itself(tokprune, name):
    code, out, _ = tokprune(name, "--help")
    assert code == 0 and "--json" in out


def test_bench_help_says_what_is_pruned_by_default(tokprune):
    _, out, _ = tokprune("bench", "--help")
    assert "1.0 at the first layer and 0.85" in out


def test_version(tokprune):
    code, out, _ = tokprune("--version")
    assert code == 0 and __version__ in out


@pytest.mark.parametrize("arguments", [[], ["nosuch"], ["env", "--nosuch"], ["bench"], ["bench", "model"]])
def test_usage_errors_are_one_line_and_exit_code_2(tokprune, arguments):
    code, out, err = tokprune(*arguments)
    assert code == 2 and out == ""
    assert err.startswith("tokprune") and err.count("\n") == 1


@pytest.mark.parametrize("error, expected", [(CliError("went wrong"), 1), (UsageError("asked wrong"), 2)])
def test_failures_are_one_line(tokprune, monkeypatch, error, expected):
    def fail(args):
        raise error

    monkeypatch.setattr("tokprune_kernels.cli.commands.env.run", fail)
    code, out, err = tokprune("env")
    assert (code, out, err) == (expected, "", f"tokprune env: error: {error}\n")


def test_interrupt_is_exit_code_130(tokprune, monkeypatch):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("tokprune_kernels.cli.commands.env.run", interrupt)
    assert tokprune("env")[0] == 130


def test_a_new_command_is_one_file(tokprune, tmp_path, monkeypatch):
    (tmp_path / "greet.py").write_text(
        '"""Greet."""\nHELP = "greet"\n'
        "def add_arguments(parser):\n    parser.add_argument('name')\n"
        "def run(args):\n    print('hello', args.name)\n    return 0\n"
    )
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    assert tokprune("greet", "you")[:2] == (0, "hello you\n")


def test_help_imports_neither_torch_nor_transformers():
    script = (
        "import sys; from tokprune_kernels.cli.main import main; main(['--help']);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_module_runs_as_script():
    command = [sys.executable, "-m", main.__name__, "nosuch"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
