"""The README shows the committed results, and nothing else."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_readme_table_is_generated_from_the_committed_results():
    done = subprocess.run([sys.executable, str(ROOT / "benches/readme_table.py"), "--check"], timeout=60)
    assert done.returncode == 0, "run python benches/readme_table.py"
