"""Arguments that several commands share: what they take, and that what they refuse is said in one line before any work."""

import json

import pytest
from tokprune_kernels.cli.machine import cores

TRAIN = "--model MODEL --data DATA --output OUTPUT"
WITH_THREADS = {
    "bench": "MODEL --lengths 5",
    "calibrate": "MODEL --text FILE --speedup 1.5",
    "eval": "MODEL --data DATA",
    "train dense": TRAIN,
    "train ltp": TRAIN,
}
WITH_PRUNING = {"bench": "MODEL --lengths 5", "eval": "MODEL --data DATA", "show": "MODEL TEXT"}
ZEROS = "0,0.1,0.1"


def refused(tokprune, *words):
    """What is said on wrong usage."""
    code, out, errors = tokprune(*" ".join(words).split())
    assert (code, out, errors.count("\n")) == (2, "", 1), errors
    return errors


@pytest.mark.parametrize("command", WITH_THREADS)
def test_more_threads_than_cores(tokprune, command):
    for count in (cores() + 1, 99999):
        said = refused(tokprune, command, WITH_THREADS[command], f"--threads {count}")
        assert f"{count} threads are more than the {cores()} cores that this process may use" in said
    assert "not a whole number of at least 1" in refused(tokprune, command, WITH_THREADS[command], "--threads 0")


@pytest.mark.parametrize("option", ["--position before_layer", "--score-denominator 16"])
@pytest.mark.parametrize("command", WITH_PRUNING)
def test_they_belong_to_thresholds_or_ratios(tokprune, command, option):
    """Said before anything is loaded: there is no such model."""
    said = refused(tokprune, command, WITH_PRUNING[command], option)
    assert f"{option.split()[0]} belongs to --thresholds or --keep-ratios: give one of these as well" in said
    said = refused(tokprune, command, WITH_PRUNING[command], option, "--pruning FILE")
    assert "the file of --pruning says all" in said


@pytest.mark.parametrize("denominator", ["0", "-3", "1.5", "sqrt", "²"])
@pytest.mark.parametrize("command", [*WITH_PRUNING, "calibrate", "train ltp", "train fixed", "train topk"])
def test_denominators_that_are_none(tokprune, command, denominator):
    arguments = {**WITH_PRUNING, "calibrate": WITH_THREADS["calibrate"], "train fixed": f"{TRAIN} --final-threshold 1", "train topk": f"{TRAIN} --final-keep 1"}
    said = refused(tokprune, command, arguments.get(command, TRAIN), f"--score-denominator {denominator}")
    assert "'sqrt_kept', 'initial' or a positive int, got" in said or "expected one argument" in said


@pytest.mark.parametrize("command", ["bench", "show", "eval"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (f"--thresholds {ZEROS}", ("after_attention", "kept")),
        (f"--thresholds {ZEROS} --position before_layer --score-denominator 16", ("before_layer", 16)),
        ("--keep-ratios 1,0.5,0.5 --score-denominator sqrt_kept", ("before_layer", "sqrt_kept")),
        ("--keep-ratios 0.9,0.5,0.5 --position after_attention", ("after_attention", "kept")),
    ],
)
def test_position_and_denominator_reach_the_model(json_of, tiny_classifier, text_file, tmp_path, command, given, expected):
    arguments = {"bench": ("--text", text_file, "--repeats", 1), "show": ("the cat sat on a mat",)}
    if command == "eval":
        pytest.importorskip("datasets", reason="needs datasets")
        (tmp_path / "rows.jsonl").write_text('{"text": "the cat", "label": 0}\n{"text": "a mat and rain", "label": 1}\n')
        arguments["eval"] = ("--data", tmp_path / "rows.jsonl", "--repeats", 1)
    pruning = json_of(command, tiny_classifier, *arguments[command], *given.split())["pruning"]
    assert (pruning["position"], pruning["score_denominator"]) == expected


def test_thresholds_of_a_padded_length(json_of, tiny_classifier, tmp_path):
    """As LTP's official code divides: what a file of a PruningConfig says, said by the options."""
    path = tmp_path / "pruning.json"
    path.write_text(json.dumps({"thresholds": [0.0, 0.05, 0.06], "position": "before_layer", "score_denominator": 16}))
    show = ("show", tiny_classifier, "rain fell and then the cat slept")
    by_file = json_of(*show, "--pruning", path)
    by_options = json_of(*show, "--thresholds", "0,0.05,0.06", "--position", "before_layer", "--score-denominator", 16)
    assert by_options["texts"] == by_file["texts"] != json_of(*show, "--thresholds", "0,0.05,0.06")["texts"]
