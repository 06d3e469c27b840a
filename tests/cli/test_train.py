"""`tokprune train` on a tiny model: every method, what it leaves behind, and how it fails."""

import json
import math

import pytest
import tokprune_kernels as tk
import transformers
from transformers import AutoTokenizer

from .conftest import LAYERS
from .labelled import OPTIONS, write_folder, write_pairs, write_rows

datasets = pytest.importorskip("datasets", reason="needs datasets")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("labelled") / "data")


@pytest.fixture(scope="module")
def dense(tmp_path_factory, tiny_bert, folder):
    """Output folder of a dense training, which the others start from."""
    from tokprune_kernels.cli.main import main

    output = tmp_path_factory.mktemp("dense") / "out"
    arguments = ("train", "dense", "--model", tiny_bert, "--data", folder, "--output", output, *OPTIONS)
    assert main([str(argument) for argument in arguments]) == 0
    return output


def result_of(output):
    return json.loads((output / "result.json").read_text(encoding="utf-8"))


@pytest.fixture
def train(tokprune, dense, folder, tmp_path):
    """Train by a method from the dense model; returns its result and the saved model's pruning."""

    def run(method, *arguments):
        output = tmp_path / method
        if output.exists():
            output = tmp_path / f"{method} again"
        code, out, errors = tokprune(
            "train", method, "--model", dense / "model", "--data", folder, "--output", output, *OPTIONS, *arguments
        )
        assert code == 0, errors
        assert "fewer FLOPs" in out and str(output) in out
        result = result_of(output)
        model = tk.PrunedBertForSequenceClassification.from_pretrained(output / "model")
        pruning = tk.PruningConfig.from_dict(model.config.pruning)
        assert pruning.to_dict() == result["pruning"], "the saved model prunes as the result says"
        assert AutoTokenizer.from_pretrained(output / "model")("cat")["input_ids"]
        return result, pruning

    return run


def test_dense(dense):
    result = result_of(dense)
    assert result["method"] == "dense" and result["processes"] == 1
    assert tk.PruningConfig.from_dict(result["pruning"]).is_dense
    evaluation = result["evaluation"]
    assert evaluation["rows"] == 12 and set(evaluation["metrics"]) == {"accuracy", "f1"}
    assert evaluation["flops_reduction"]["packed"] == 1.0 and evaluation["tokens_alive"] == [1.0] * (LAYERS + 1)
    assert result["arguments"]["lr"] == 1e-3 and result["options"]["learning_rate"] == 1e-3
    assert result["machine"]["packages"]["datasets"] and result["machine"]["cpu"]["model"]
    config = json.loads((dense / "model" / "config.json").read_text())
    assert config["id2label"] == {"0": "cat", "1": "no"}
    assert (dense / "dense" / "log.jsonl").is_file()


def test_thresholds_learned(train, tmp_path):
    result, pruning = train("ltp", "--soft-epochs", 1, "--speedup", 1.5, "--threshold-lr", 0.1)
    assert (pruning.criterion, pruning.position, len(pruning.thresholds)) == ("threshold", "after_attention", LAYERS)
    log = [json.loads(line) for line in (tmp_path / "ltp" / "soft" / "log.jsonl").read_text().splitlines()]
    assert {"theta_0", "saved", "target"} <= log[-1].keys()
    assert (tmp_path / "ltp" / "hard" / "log.jsonl").is_file()
    assert result["options"]["soft"]["epochs"] == 1


def test_thresholds_held_to_a_line(train, tmp_path):
    """Where they hardly learn and are held to the constraint, the start's shape is what is left: a fit scales it as a whole."""
    held = ("--threshold-lr", 1e-6, "--start-power", 2, "--multiplier-start", 40)
    result, pruning = train("ltp", "--speedup", 1.5, "--score-denominator", "sqrt_kept", *held)
    assert pruning.score_denominator == "sqrt_kept"
    first, *between, _ = [theta / pruning.thresholds[0] for theta in pruning.thresholds]
    assert [first, *between] == pytest.approx([(layer + 1) ** 2 for layer in range(LAYERS - 1)], rel=1e-3)
    log = [json.loads(line) for line in (tmp_path / "ltp" / "soft" / "log.jsonl").read_text().splitlines()]
    assert log[0]["lambda_quadratic"] == pytest.approx(40, abs=1)
    assert result["options"]["start_power"] == 2


def test_thresholds_learned_with_a_regulariser(train):
    """The paper's own form: from a line of thresholds, hidden states masked, a fixed denominator, no constraint."""
    options = ("--regularizer", 0.1, "--start-threshold", 0.05, "--masks", "hidden", "--score-denominator", 32)
    result, pruning = train("ltp", *options, "--distillation", 0)
    assert pruning.score_denominator == 32
    assert result["options"]["start_threshold"] == 0.05 and result["options"]["masks"] == "hidden"


def test_keep_ratios_learned(train, tmp_path):
    result, pruning = train("top", "--speedup", 1.4, "--gate-lr", 0.5, "--multiplier-lr", 0.5, "--bins", 5)
    assert (pruning.criterion, pruning.position) == ("topk", "before_layer") and pruning.keep_ratios[0] == 1.0
    # The gates give shares of whole bins, before one power for all of them meets the constraint.
    last = json.loads((tmp_path / "top" / "soft" / "log.jsonl").read_text().splitlines()[-1])
    ratios = [last[f"keep_{layer}"] for layer in range(LAYERS)]
    assert all(round(5 * ratio, 5) == int(round(5 * ratio)) or ratio < 1e-6 for ratio in ratios)
    powers = [math.log(kept) / math.log(ratio) for ratio, kept in zip(ratios, pruning.keep_ratios, strict=True) if 1e-6 < ratio < 1.0]
    assert not pruning.count_first, "of the tokens past the first, as the bins are"
    assert powers == pytest.approx([powers[0]] * len(powers))
    assert result["options"]["bins"] == 5


def test_keep_ratios_under_measured_time(train, tmp_path):
    options = ("--ranking", 0, "--epochs", 0.2, "--soft-epochs", 0.2, "--count-first")
    _, pruning = train("top", "--speedup", 1.2, "--latency", *options)
    assert pruning.count_first
    table = json.loads((tmp_path / "top" / "latency.json").read_text())
    assert table["texts"] == 8


@pytest.mark.parametrize("kind", ["DistilBert", "Electra", "Roberta"])
def test_other_model_types(tokprune, json_of, tiny_bert, folder, tmp_path, kind):
    """Taught in every way by a dense model of their own, pruned, saved, and scored again as they were."""
    start, output = tmp_path / "start", tmp_path / "out"
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    cls = getattr(transformers, f"{kind}ForSequenceClassification")
    sizes = {"hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "max_position_embeddings": 65, "id2label": {0: "no", 1: "cat"}}
    config = cls.config_class(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes)
    cls(config).save_pretrained(start)
    tokenizer.save_pretrained(start)
    taught = [word for what in ("state", "layer", "token", "importance") for word in (f"--{what}-distillation", 1)]
    code, _, errors = tokprune("train", "ltp", "--model", start, "--data", folder, "--output", output, "--speedup", 1.5, "--joined", 8, *taught, *OPTIONS)
    assert code == 0, errors
    result = result_of(output)
    assert result["evaluation"]["flops_reduction"]["packed"] > 1.2
    again = json_of("eval", output / "model", "--data", folder, "--no-timing", "--threads", 1)
    assert again["evaluation"] == result["evaluation"] and again["pruning"]["thresholds"] == result["pruning"]["thresholds"]


def test_more_texts_and_more_to_learn_from(train, tmp_path):
    """Longer and joined texts, the teacher's states, tokens that leave at once; what the teacher said serves a second training."""
    texts = ("--min-length", 4, "--joined", 12, "--state-distillation", 0.5, "--layer-distillation", 2, "--token-distillation", 1, "--importance-distillation", 1, "--importance-from", "saliency", "--answers", tmp_path / "answers")
    _, pruning = train("top", "--speedup", 1.4, "--position", "after_attention", *texts)
    assert pruning.position == "after_attention" and pruning.keep_ratios[-1] < 1e-6
    (kept,) = (tmp_path / "answers").iterdir()
    written = kept.stat().st_mtime_ns
    result, _ = train("fixed", "--final-threshold", 0.09, *texts)
    assert kept.stat().st_mtime_ns == written and len(list((tmp_path / "answers").iterdir())) == 1
    assert result["arguments"]["joined"] == 12 and result["arguments"]["min_length"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--min-length", 1000), "has 1000 tokens or more"),
        (("--joined", 5, "--distillation", 0), "give its answers a share of the loss"),
        (("--state-distillation", -1), "state distillation must be a weight of at least 0"),
        (("--layer-distillation", -1), "layer distillation must be a weight of at least 0"),
        (("--token-distillation", -1), "token distillation must be a weight of at least 0"),
        (("--importance-distillation", -1), "importance distillation must be a weight of at least 0"),
    ],
)
def test_options_that_cannot_be_met(tokprune, dense, folder, tmp_path, options, message):
    start = ("--model", dense / "model", "--data", folder, "--output", tmp_path / "out", *OPTIONS)
    code, _, errors = tokprune("train", "fixed", *start, "--final-threshold", 0.09, *options)
    assert code != 0 and message in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--start-power", 1), "give a speedup"),
        (("--speedup", 1.5, "--start-power", 1, "--start-threshold", 0.1), "no start_threshold"),
        (("--speedup", 1.5, "--start-power", -1), "by a power of at least 0"),
        (("--speedup", 1.5, "--multiplier-start", -1), "quadratic, the first multiplier"),
        (("--score-denominator", "sqrt"), "'sqrt_kept'"),
    ],
)
def test_thresholds_that_cannot_be_learned(tokprune, dense, folder, tmp_path, options, message):
    start = ("--model", dense / "model", "--data", folder, "--output", tmp_path / "out", *OPTIONS)
    code, _, errors = tokprune("train", "ltp", *start, *options)
    assert code != 0 and message in errors


def test_fixed_thresholds(train):
    """From 0, as in LTP's code, or to the final one in the last layer."""
    _, pruning = train("fixed", "--final-threshold", 0.09)
    assert pruning.thresholds == pytest.approx((0.0, 0.03, 0.06))
    result, pruning = train("fixed", "--final-threshold", 0.09, "--line-start", 1)
    assert pruning.thresholds == pytest.approx((0.03, 0.06, 0.09))
    assert result["evaluation"]["flops_reduction"]["packed"] > 1


def test_fixed_pruning_where_and_by_what_it_is_told(train):
    result, pruning = train("fixed", "--final-threshold", 0.09, "--line-start", 1, "--position", "before_layer", "--score-denominator", "initial")
    assert pruning == tk.PruningConfig.ltp([0.0, 0.045, 0.09], position="before_layer", score_denominator="initial")
    assert result["evaluation"]["flops_reduction"]["packed"] > 1
    _, pruning = train("topk", "--final-keep", 0.5, "--whole-layers", 1, "--position", "after_attention", "--score-denominator", 16)
    assert (pruning.position, pruning.score_denominator) == ("after_attention", 16)


def test_falling_keep_ratios(train):
    """The same shares, after the attention of their layer as in LTP's code, or one attention earlier."""
    alive = {}
    for position in ("after_attention", "before_layer"):
        options = () if position == "after_attention" else ("--position", position)
        result, pruning = train("topk", "--final-keep", 0.5, "--whole-layers", 1, *options)
        assert pruning.keep_ratios == pytest.approx((1.0, 0.75, 0.5 / 0.75)) and pruning.position == position
        alive[position] = result["evaluation"]["tokens_alive"]
    assert alive["before_layer"][0] == 1.0 > alive["before_layer"][1] > alive["before_layer"][2]
    assert alive["after_attention"][1:] == pytest.approx([1.0, *alive["before_layer"][1:3]])


@pytest.mark.parametrize("given", ["file", "ratios", "thresholds"])
def test_a_hard_stage_on_what_is_given(train, tmp_path, given):
    """Ratios or thresholds from the command line, or a whole configuration; they stand, the weights are trained."""
    file = tmp_path / "pruning.json"
    wanted = {
        "file": tk.PruningConfig.top([1.0, 0.6, 0.5], count_first=False),
        "ratios": tk.PruningConfig.top([1.0, 0.7, 0.4]),
        "thresholds": tk.PruningConfig.ltp([0.0, 0.05, 0.09]),
    }[given]
    file.write_text(json.dumps(wanted.to_dict()))
    options = {"file": ("--pruning", file), "ratios": ("--keep-ratios", "1,0.7,0.4"), "thresholds": ("--thresholds", "0,0.05,0.09")}[given]
    result, pruning = train("hard", *options)
    assert pruning == wanted and result["method"] == "hard"
    assert result["evaluation"]["flops_reduction"]["packed"] > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--keep-ratios", "1,0.5"), "the model has 3 layers, got 2 entries"),
        (("--keep-ratios", "1,0.5,0.5", "--thresholds", "0,0,0"), "not allowed with"),
        (("--thresholds", "0,much"), "is not a list of numbers"),
    ],
)
def test_a_hard_stage_needs_what_fits(tokprune, dense, folder, tmp_path, options, message):
    start = ("--model", dense / "model", "--data", folder, "--output", tmp_path / "out", *OPTIONS)
    code, _, errors = tokprune("train", "hard", *start, *options)
    assert code == 2 and message in errors


def test_a_hard_stage_goes_on_from_a_pruned_model(tokprune, train, folder, tmp_path):
    """Under the pruning in its config.json, as an imported checkpoint has it."""
    _, pruning = train("fixed", "--final-threshold", 0.09)
    start = ("--model", tmp_path / "fixed" / "model", "--data", folder, "--output", tmp_path / "out", *OPTIONS)
    code, _, errors = tokprune("train", "hard", *start)
    assert code == 0, errors
    assert result_of(tmp_path / "out")["pruning"] == pruning.to_dict() and not pruning.is_dense


def test_a_hard_stage_on_nothing(tokprune, tiny_classifier, tmp_path):
    folder = write_folder(tmp_path / "numbers", labels=(0, 1))
    code, _, errors = tokprune("train", "hard", "--model", tiny_classifier, "--data", folder, "--output", tmp_path / "out", *OPTIONS)
    assert code == 2 and "give --pruning, --keep-ratios or --thresholds" in errors


def test_pairs_and_numbers(tokprune, tiny_bert, tmp_path):
    """Regression: one output, correlations as the score; then pruned, from that model."""
    data = write_pairs(tmp_path / "pairs")
    code, _, errors = tokprune("train", "dense", "--model", tiny_bert, "--data", data, "--output", tmp_path / "a", *OPTIONS)
    assert code == 0, errors
    evaluation = result_of(tmp_path / "a")["evaluation"]
    assert set(evaluation["metrics"]) == {"pearson", "spearman"}
    arguments = ("--model", tmp_path / "a" / "model", "--data", data, "--output", tmp_path / "b", "--final-keep", 0.5)
    code, _, errors = tokprune("train", "topk", *arguments, "--whole-layers", 1, *OPTIONS)
    assert code == 0, errors
    assert result_of(tmp_path / "b")["evaluation"]["flops_reduction"]["packed"] > 1
    config = json.loads((tmp_path / "b" / "model" / "config.json").read_text())
    assert config["problem_type"] == "regression"


def test_finished_folder(tokprune, dense, tiny_bert, folder):
    arguments = ("train", "dense", "--model", tiny_bert, "--data", folder, "--output", dense, *OPTIONS)
    before = (dense / "result.json").read_bytes()
    code, _, errors = tokprune(*arguments)
    assert code == 1 and "finished training" in errors and errors.count("\n") == 1
    code, out, _ = tokprune(*arguments, "--resume")
    assert code == 0 and "nothing to resume" in out
    assert (dense / "result.json").read_bytes() == before


def fails(tokprune, *arguments):
    """The one line that a failing training prints."""
    code, _, errors = tokprune("train", *arguments)
    assert code == 1, errors
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if "error:" in line]
    assert errors.splitlines()[-1] == line
    return line


UNUSABLE = {
    "no text column": [{"words": "a cat", "label": 0}, {"words": "cats", "label": 1}],
    "row 1 has no text": [{"text": "a cat", "label": 0}, {"text": None, "label": 1}],
    "without holes": [{"text": "a cat", "label": 0}, {"text": "cats", "label": 3}],
    "not labelled": [{"text": "a cat", "label": -1}, {"text": "cats", "label": -1}],
    "the same label": [{"text": "a cat", "label": 1}, {"text": "cats", "label": 1}],
}


@pytest.mark.parametrize("words", UNUSABLE)
def test_unusable_data(tokprune, tiny_bert, tmp_path, words):
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        write_rows(tmp_path / "data" / f"{split}.jsonl", UNUSABLE[words])
    line = fails(tokprune, "dense", "--model", tiny_bert, "--data", tmp_path / "data", "--output", tmp_path / "out", *OPTIONS)
    assert line.startswith("tokprune train: error: unusable data: ") and words in line
    assert not (tmp_path / "out").exists()


def test_nothing_to_evaluate_on(tokprune, tiny_bert, tmp_path):
    write_rows(tmp_path / "rows.jsonl", [{"text": "a", "label": 0}, {"text": "cat", "label": 1}])
    data = ("--data", tmp_path / "rows.jsonl", "--output", tmp_path / "out")
    assert "no split 'validation'" in fails(tokprune, "dense", "--model", tiny_bert, *data, *OPTIONS)


def test_no_data(tokprune, tiny_bert, tmp_path):
    (tmp_path / "empty").mkdir()
    data = ("--data", tmp_path / "empty", "--output", tmp_path / "out")
    assert "no data in" in fails(tokprune, "dense", "--model", tiny_bert, *data, *OPTIONS)


def test_speedup_of_nothing(tokprune, dense, folder, tmp_path):
    arguments = ("--model", dense / "model", "--data", folder, "--output", tmp_path / "out", *OPTIONS)
    assert "--speedup must be above 1, got 1.0" in fails(tokprune, "top", *arguments, "--speedup", 1)


def test_batch_of_more_rows_than_there_are(tokprune, tiny_bert, folder, tmp_path):
    arguments = ("--model", tiny_bert, "--data", folder, "--output", tmp_path / "out", "--batch", 64)
    assert "40 rows do not fill a batch of 64" in fails(tokprune, "dense", *arguments)


@pytest.mark.parametrize("arguments", [(), ("dense",), ("top", "--model", "m", "--data", "d", "--output", "o"), ("magic",)])
def test_usage(tokprune, arguments):
    code, _, errors = tokprune("train", *arguments)
    assert code == 2 and errors.count("\n") == 1
