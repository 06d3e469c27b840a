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


SOFT = f"train ltp {TRAIN}"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (f"{SOFT} --epochs inf", "--epochs: 'inf' is not a finite number from 0"),
        (f"{SOFT} --soft-epochs nan", "--soft-epochs: 'nan' is not a finite number from 0"),
        (f"{SOFT} --lr nan", "--lr: 'nan' is not a finite number from 0"),
        (f"{SOFT} --temperature 0 1", "--temperature: '0' is not a finite number above 0"),
        (f"{SOFT} --teacher-temperature 0", "--teacher-temperature: '0' is not a finite number above 0"),
        (f"{SOFT} --regularizer x", "--regularizer: 'x' is not a finite number from 0"),
        (f"{SOFT} --dropout 2", "--dropout: '2' is not a finite number from 0 up to 1"),
        (f"{SOFT} --warmup -1", "--warmup: '-1' is not a finite number from 0 up to 1"),
        (f"{SOFT} --checkpoints -1", "--checkpoints: '-1' is not a whole number of at least 0"),
        (f"{SOFT} --seed -1", "--seed: '-1' is not a whole number from 0 to 4294967295"),
        (f"{SOFT} --speedup inf", "--speedup: 'inf' is not a finite number up to 1e+06"),
        (f"train top {TRAIN} --speedup 2 --bins 10000000000", "--bins: '10000000000' is not a whole number from 1 to 10000"),
        ("calibrate MODEL --text FILE --speedup 1e300", "--speedup: '1e300' is not a finite number up to 1e+06"),
        ("eval MODEL --data DATA --speedups nan", "--speedups: 'nan' is not a finite number"),
        (f"bench MODEL --lengths 5 --batch {10**40}", "--batch: 100000000000000000... is too large a number"),
    ],
)
def test_numbers_out_of_range(tokprune, given, said):
    assert said in refused(tokprune, given)


def test_more_tokens_than_a_batch_can_have(tokprune, tiny_bert):
    assert "are more than the 2147483647 tokens that a batch can have" in refused(tokprune, f"bench {tiny_bert} --lengths 5 --batch {10**10}")


@pytest.mark.parametrize("command", ["calibrate MODEL --text FILE --speedup 1.5 --output", "train dense --model MODEL --data DATA --output"])
def test_folders_that_cannot_be(tokprune, tmp_path, command):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/a/b"):
        assert f"cannot write a folder '{tmp_path / place}': '{tmp_path / 'file'}' is a file" in refused(tokprune, command, str(tmp_path / place))


@pytest.mark.parametrize(("error", "said"), [(OSError("no\n  space left"), "no space left"), (MemoryError(), "not enough memory for that")])
def test_what_the_system_refuses_is_one_line(tokprune, monkeypatch, error, said):
    def fail(args):
        raise error

    monkeypatch.setattr("tokprune_kernels.cli.commands.env.run", fail)
    code, out, errors = tokprune("env")
    assert (code, out, errors.count("\n")) == (1, "", 1) and said in errors
