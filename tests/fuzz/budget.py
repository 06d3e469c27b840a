"""How long to look for what is wrong: TOKPRUNE_FUZZ_SECONDS (default 10) are shared out among the targets that run.

The same examples in every run unless TOKPRUNE_FUZZ_SEED is set: a number, or "random". What failed is kept in the folder
TOKPRUNE_FUZZ_CORPUS (default .fuzz_corpus) and is tried first the next time.
"""

import os
import secrets
import time
from pathlib import Path

import pytest

hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis")

from hypothesis.database import DirectoryBasedExampleDatabase  # noqa: E402

SECONDS = float(os.environ.get("TOKPRUNE_FUZZ_SECONDS", "10"))
_SEED = os.environ.get("TOKPRUNE_FUZZ_SEED", "0")
SEED = secrets.randbits(40) if _SEED == "random" else int(_SEED)
CORPUS = Path(os.environ.get("TOKPRUNE_FUZZ_CORPUS", Path(__file__).parents[2] / ".fuzz_corpus"))
_SETTINGS = hypothesis.settings(
    max_examples=25, deadline=None, database=DirectoryBasedExampleDatabase(CORPUS), print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip
_targets = []


def fuzzed(*strategies):
    """Decorator: a test that draws arguments from the strategies until its share of the time is over."""

    def decorate(check):
        _targets.append(check)

        def run():
            end, seed = time.monotonic() + SECONDS / len(_targets), SEED
            while seed == SEED or time.monotonic() < end:
                hypothesis.seed(seed)(_SETTINGS(hypothesis.given(*strategies)(check)))()
                seed += 1

        run.__name__, run.__doc__, run.__module__ = check.__name__, check.__doc__, check.__module__
        return run

    return decorate
