"""Every command where a package that it needs is not installed: one sentence that names the extra, exit code 1."""

import json

import pytest
from tokprune_kernels.cli.main import _commands

from ..hidden import run_without

# Enough to get past the parser; nothing else is looked at before the packages are.
ARGUMENTS = {
    "bench": "MODEL --lengths 5",
    "calibrate": "MODEL --text FILE --speedup 1.5",
    "demo": "",
    "env": "",
    "eval": "MODEL --data DATA",
    "import": "ltp FOLDER --output OUTPUT --max-length 8",
    "show": "MODEL TEXT",
    "train": "dense --model MODEL --data DATA --output OUTPUT",
}
NEEDS = {name: getattr(command, "NEEDS", ()) for name, command in _commands().items()}
_RUN = """
import contextlib, io, json
from tokprune_kernels.cli.main import main
said = {{}}
for command, arguments in {commands!r}.items():
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        code = main([command, *arguments.split()])
    said[command] = code, errors.getvalue()
print(json.dumps(said))
"""


def test_every_command_is_tried():
    assert set(NEEDS) == set(ARGUMENTS), "a new command: add arguments that its parser takes"
    assert not NEEDS["env"] and all(NEEDS[name] for name in NEEDS if name != "env")


@pytest.mark.parametrize("package", ["transformers", "accelerate", "datasets"])
def test_one_sentence_that_names_the_extra(package):
    commands = {name: ARGUMENTS[name] for name, needs in NEEDS.items() if package in needs or not needs}
    done = run_without([package], _RUN.format(commands=commands))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.pop("env") == [0, ""], "needs none of them"
    for name, (code, errors) in said.items():
        extra = "train" if name in ("train", "eval", "calibrate") else "models"
        assert code == 1 and errors == (
            f"tokprune {name}: error: this command needs {package}, not installed here: "
            f'pip install "tokprune-kernels[{extra}]", or in a checkout pip install --no-build-isolation ".[{extra}]"\n'
        )


def test_all_that_is_missing_is_said_at_once():
    done = run_without(["transformers", "accelerate", "datasets"], _RUN.format(commands={"train": ARGUMENTS["train"]}))
    assert "needs transformers, accelerate and datasets, not installed" in json.loads(done.stdout)["train"][1]


def test_what_transformers_itself_needs(tiny_bert):
    done = run_without(["safetensors"], _RUN.format(commands={"bench": f"{tiny_bert} --lengths 5"}))
    code, errors = json.loads(done.stdout)["bench"]
    assert code == 1 and "needs safetensors, not installed here" in errors and '"tokprune-kernels[models]"' in errors
