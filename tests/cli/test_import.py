"""`tokprune import`, and what the other commands say of a checkpoint that needs it."""

import json
import sys
from pathlib import Path

import pytest
import tokprune_kernels as tk

from ..train.official import BINS, LAYERS, WIDTH, write_ltp, write_top

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = None


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    """The command, whatever the entry points were when the package was installed."""
    from tokprune_kernels.cli import main
    from tokprune_train.commands import import_

    commands = main._commands
    monkeypatch.setattr(main, "_commands", lambda: commands() | {"import": import_})


def masks(*on):
    return [[1.0] * count + [0.0] * (BINS - count) for count in on]


@pytest.mark.skipif(tomllib is None, reason="needs Python 3.11's tomllib")
def test_it_is_a_command_of_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["tokprune.commands"]["import"] == "tokprune_train.commands.import_"


def test_ltp(tokprune, tmp_path):
    folder, output, told = write_ltp(tmp_path / "ltp"), tmp_path / "out", tmp_path / "told.json"
    code, out, errors = tokprune("import", "ltp", folder, "--output", output, "--max-length", WIDTH, "--json", told)
    assert code == 0, errors
    assert "RobertaForSequenceClassification" in out and "thresholds 0 1e-05 0.026 0.034" in out and "vocab.txt" in out
    result = json.loads(told.read_text())
    saved = json.loads((output / "config.json").read_text())
    assert saved["pruning"] == result["pruning"] and (output / "vocab.txt").is_file()
    assert tk.PruningConfig.from_dict(saved["pruning"]).score_denominator == WIDTH
    assert "ibert.embeddings.word_embeddings.weight_integer" in result["left_out"]


def test_top(tokprune, tmp_path):
    folder, output = write_top(tmp_path / "top", masks(10, 7, 4)), tmp_path / "out"
    code, out, errors = tokprune("import", "top", folder, "--output", output, "--layers", "1,2,3")
    assert code == 0, errors
    assert "keep ratios 1 1 0.7 0.4 (before layer" in out and "of the tokens past the first" in out
    pruning = tk.PruningConfig.from_dict(json.loads((output / "config.json").read_text())["pruning"])
    assert pruning == tk.PruningConfig.top([1.0, 1.0, 0.7, 0.4], count_first=False)
    assert not (output / "zs.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "expected", "message"),
    [
        (("ltp", "ltp"), 1, "give --max-length"),
        (("ltp", "top", "--max-length", WIDTH), 1, "model_type in config.json must be 'ltp'"),
        (("top", "ltp", "--layers", "1"), 1, "architectures in config.json must name one of ToPBertModel"),
        (("top", "top", "--layers", "1,2"), 1, "--layers 1,2,3"),
        (("top", "top", "--layers", "all"), 2, "'all' is not a list of layers"),
        (("top", "top"), 2, "--layers"),
        (("ltp", "nowhere"), 1, "is no folder"),
    ],
)
def test_what_cannot_be_imported(tokprune, tmp_path, monkeypatch, arguments, expected, message):
    monkeypatch.chdir(tmp_path)
    write_ltp(Path("ltp")), write_top(Path("top"), masks(1, 2, 3))
    code, _, errors = tokprune("import", *arguments, "--output", "out")
    assert code == expected and message in errors and len(errors.strip().splitlines()) == 1
    assert not Path("out").exists()


def test_the_checkpoint_itself_is_left_alone(tokprune, tmp_path):
    folder = write_ltp(tmp_path / "ltp")
    code, _, errors = tokprune("import", "ltp", folder, "--output", folder, "--max-length", WIDTH)
    assert code == 1 and "--output must be another folder" in errors


@pytest.mark.parametrize("command", ["bench", "eval", "calibrate", "train"])
@pytest.mark.parametrize("method", ["ltp", "top"])
def test_other_commands_name_it(tokprune, tmp_path, text_file, command, method):
    folder = write_ltp(tmp_path / "of") if method == "ltp" else write_top(tmp_path / "of", masks(*[5] * (LAYERS - 1)))
    (tmp_path / "validation.jsonl").write_text('{"text": "a", "label": 0}\n')
    arguments = {
        "bench": (folder, "--text", text_file),
        "eval": (folder, "--data", tmp_path),
        "calibrate": (folder, "--text", text_file, "--speedup", 1.2),
        "train": ("fixed", "--model", folder, "--data", tmp_path, "--output", tmp_path / "out", "--final-threshold", 0.1),
    }
    code, _, errors = tokprune(command, *arguments[command])
    assert code == 1 and f"`tokprune import {method} {folder} --output FOLDER" in errors and len(errors.strip().splitlines()) == 1
