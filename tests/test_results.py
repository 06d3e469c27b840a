"""The README shows the committed results, and nothing else; they are what the scripts in benches/ make."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAININGS = sorted((ROOT / "benches/results/training").glob("*/*/result.json"))


def test_readme_tables_are_generated_from_the_committed_results():
    done = subprocess.run([sys.executable, str(ROOT / "benches/readme_table.py"), "--check"], timeout=60)
    assert done.returncode == 0, "run python benches/readme_table.py"


@pytest.mark.parametrize("file", TRAININGS, ids=lambda file: f"{file.parts[-3]}/{file.parts[-2]}")
def test_committed_trainings_are_those_of_the_recipes(file, monkeypatch):
    pytest.importorskip("datasets", reason="tokprune train needs it")
    monkeypatch.syspath_prepend(str(ROOT / "benches"))
    from training.records import differences

    data, (name, seed) = file.parts[-3], file.parts[-2].rsplit("-seed", 1)
    text = file.read_text(encoding="utf-8")
    assert differences(data, name, int(seed), json.loads(text)) == []
    assert not re.findall(r'"/[^"]*"', text), "folders of a machine have no place in a result"
