"""PruningConfig: what it holds, what it refuses, and that it survives JSON."""

import json
import subprocess
import sys

import pytest

from tokprune_kernels import PruningConfig


def test_constructors():
    ltp = PruningConfig.ltp([0, 0.01], score_denominator=128, protected_token_ids=[102])
    assert (ltp.criterion, ltp.thresholds, ltp.keep_ratios, ltp.position) == (
        "threshold",
        (0.0, 0.01),
        None,
        "after_attention",
    )
    assert (ltp.score_denominator, ltp.protected_token_ids, ltp.values) == (128, (102,), ltp.thresholds)
    top = PruningConfig.top((1.0, 0.5))
    assert (top.criterion, top.thresholds, top.keep_ratios, top.position) == ("topk", None, (1.0, 0.5), "before_layer")
    assert top.values == top.keep_ratios
    assert PruningConfig.dense().values is None


def test_where_it_prunes():
    ltp, top = PruningConfig.ltp([-1.0, 0.0, 0.01]), PruningConfig.top([1.0, 0.99, 1.0])
    assert [ltp.prunes_at(layer) for layer in range(3)] == [False, False, True]
    assert [top.prunes_at(layer) for layer in range(3)] == [False, True, False]
    assert not PruningConfig.dense().prunes_at(7)
    assert [c.is_dense for c in (ltp, top, PruningConfig.dense(), PruningConfig.ltp([0.0]), PruningConfig.top([1.0]))] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_validate():
    PruningConfig.dense().validate(12)
    PruningConfig.ltp([0.0, 0.1]).validate(2)
    with pytest.raises(ValueError, match="keep_ratios needs one entry per layer: the model has 12 layers, got 2"):
        PruningConfig.top([1.0, 0.5]).validate(12)


@pytest.mark.parametrize(
    "config",
    [
        PruningConfig.dense(),
        PruningConfig.ltp([0.0, 0.1 + 0.2], score_denominator="initial"),
        PruningConfig.top([1.0, 1 / 3], protect_first=False, protected_token_ids=(101, 102)),
        PruningConfig.top([0.5, 0.5], position="after_attention"),
        PruningConfig.top([1.0, 0.5], count_first=False),
    ],
)
def test_json_keeps_every_bit(config):
    text = json.dumps(config.to_dict())
    assert PruningConfig.from_dict(json.loads(text)) == config


def test_a_short_dict_takes_the_defaults():
    assert PruningConfig.from_dict({}) == PruningConfig.dense()
    assert PruningConfig.from_dict({"thresholds": [0.1]}) == PruningConfig.ltp([0.1])


def test_numbers_of_other_libraries_are_taken():
    numpy, torch = pytest.importorskip("numpy"), pytest.importorskip("torch")
    expected = PruningConfig.ltp([0.0, 0.5], protected_token_ids=[3])
    assert PruningConfig.ltp(numpy.array([0.0, 0.5]), protected_token_ids=numpy.array([3])) == expected
    assert PruningConfig.ltp(torch.tensor([0.0, 0.5]), protected_token_ids=torch.tensor([3])) == expected
    json.dumps(PruningConfig.ltp(numpy.array([0.0, 0.5], dtype="float32")).to_dict())


BAD = {
    "both lists": (ValueError, "keep_ratios", {"thresholds": [0.1], "keep_ratios": [1.0]}),
    "list of the other criterion": (ValueError, "keep_ratios", {"criterion": "topk", "thresholds": [0.1]}),
    "which entry": (ValueError, r"keep_ratios\[2\]", {"criterion": "topk", "keep_ratios": [1.0, 0.5, 0.0]}),
    "entry 0 before any score": (ValueError, r"thresholds\[0\]", {"thresholds": [0.1], "position": "before_layer"}),
    "bool as a number": (TypeError, "thresholds", {"thresholds": [True]}),
    "bool as a denominator": (TypeError, "score_denominator", {"score_denominator": True}),
    "share of no ranking": (ValueError, "count_first=False.*criterion 'topk'", {"thresholds": [0.1], "count_first": False}),
    "ranked first token": (
        ValueError,
        "count_first=False.*protect_first=True",
        {"criterion": "topk", "keep_ratios": [1.0], "count_first": False, "protect_first": False},
    ),
    "count_first as a number": (TypeError, "count_first", {"criterion": "topk", "keep_ratios": [1.0], "count_first": 0}),
    "negative id": (ValueError, "protected_token_ids", {"protected_token_ids": [-1]}),
    "dict of ratios": (TypeError, "keep_ratios", {"criterion": "topk", "keep_ratios": {0: 1.0}}),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case):
    error, match, values = BAD[case]
    with pytest.raises(error, match=match):
        PruningConfig.from_dict(values)


def test_a_missing_list_is_not_dense_by_accident():
    for make in (PruningConfig.ltp, PruningConfig.top):
        with pytest.raises(TypeError, match=r"dense\(\)"):
            make(None)


def test_importing_it_is_light():
    code = "import sys, tokprune_kernels; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'numpy')))"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code]).returncode == 0
