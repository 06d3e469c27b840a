"""The README holds what it promises: its example runs, its commands and files exist."""

import re
import shlex
from pathlib import Path

import pytest

from tokprune_kernels.cli.main import build_parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]


def test_the_example_runs(minilm_path, capsys):
    example = EXAMPLES[0]
    name = "sentence-transformers/all-MiniLM-L6-v2"
    assert f'"{name}"' in example and sum(map(bool, example.split("\n"))) <= 10
    namespace = {}
    exec(example.replace(name, str(minilm_path)), namespace)
    assert "torch.Size([2, " in capsys.readouterr().out
    kept = namespace["out"].pruning.kept_lengths
    assert kept.shape == (7, 2) and (kept[-1] < kept[0]).all()


def test_the_three_lines_for_sentence_transformers_run(minilm_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    import tokprune_kernels as tk

    assert len(EXAMPLES) == 2 and len(EXAMPLES[1].strip().splitlines()) == 3
    namespace = {"tk": tk, "SentenceTransformer": sentence_transformers.SentenceTransformer, "texts": ["Good morning!", "x"]}
    exec(EXAMPLES[1].replace("sentence-transformers/all-MiniLM-L6-v2", str(minilm_path)), namespace)
    assert namespace["embeddings"].shape == (2, 384)


def test_the_commands_are_make_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    page = ROOT / name
    for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("section", ["results", "training"])
def test_the_generated_sections_have_their_markers(section):
    assert README.count(f"<!-- {section}:begin -->") == README.count(f"<!-- {section}:end -->") == 1


@pytest.mark.parametrize("name", ["README.md", "docs/training.md"])
def test_the_training_commands_can_be_given(name):
    pytest.importorskip("datasets", reason="tokprune train needs it")
    lines = re.findall(r"^(?:torchrun .*)?tokprune ((?:train|eval) .*)$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    assert lines
    for line in lines:
        build_parser().parse_args(shlex.split(line, comments=True))


def test_the_install_brings_what_the_example_imports():
    (install,) = re.findall(r"^pip install .*--no-build-isolation (.*)$", README, re.MULTILINE)
    assert install == '".[models]"', "the example imports transformers"
