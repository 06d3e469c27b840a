"""`tokprune bench` on a tiny model: what it reports, that it refuses wrong results, and how it fails."""

import json

import pytest
import torch

from tokprune_kernels import PruningConfig
from tokprune_kernels.cli import checks, comparison
from tokprune_kernels.cli.batches import random_batch
from tokprune_kernels.cli.loading import load_model

from .conftest import LAYERS, TEXTS

CONTENDERS = {"padded", "packed", "pruned"}


def test_real_text(json_of, tiny_bert, text_file):
    result = json_of("bench", tiny_bert, "--text", text_file, "--batch", 3, "--threads", 1, "--repeats", 4)
    assert set(result["timings"]) == set(result["factors"]) == CONTENDERS
    assert all(len(timing["samples_ms"]) == 4 for timing in result["timings"].values())
    assert result["machine"]["threads"] == 1 and result["machine"]["cpu"]["model"]
    assert all(check["passed"] for check in result["checks"])
    data = result["input"]
    assert (data["texts"], data["batches"], data["shortest"], data["longest"]) == (len(TEXTS), 2, 3, 16)
    flops = result["flops"]
    assert flops["padded to 64"] > flops["padded"] > flops["packed"] > flops["pruned"] > 0
    assert result["factors"]["packed"]["flops_vs_padded"] == pytest.approx(flops["padded"] / flops["packed"])
    assert result["factors"]["padded"]["time_vs_padded"] == 1.0


def test_the_default_pruning_is_said(tokprune, json_of, tiny_bert):
    result = json_of("bench", tiny_bert, "--lengths", "8,5", "--repeats", 1)
    assert result["pruning"]["keep_ratios"] == [1.0, 0.85, 0.85] and "default" in result["pruning"]["origin"]
    code, out, _ = tokprune("bench", tiny_bert, "--lengths", "8,5", "--repeats", 1)
    assert code == 0
    for words in ("keep ratios 1 0.85 0.85", "the default", "Hugging Face, padded", "packed and pruned", "GFLOPs"):
        assert words in out


def test_lengths_are_repeated_to_fill_the_batch(json_of, tiny_bert):
    data = json_of("bench", tiny_bert, "--lengths", "8,5", "--batch", 5, "--repeats", 1)["input"]
    assert (data["texts"], data["tokens"], data["padded_places"]) == (5, 8 + 5 + 8 + 5 + 8, 40)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_classifier_is_compared_by_its_logits(json_of, tiny_classifier, text_file, dtype):
    result = json_of("bench", tiny_classifier, "--text", text_file, "--repeats", 1, "--dtype", dtype)
    assert result["model"]["class"] == "BertForSequenceClassification" and result["model"]["dtype"] == dtype


@pytest.mark.parametrize(
    "config",
    [
        PruningConfig.ltp([0.05, 0.08, 0.1]),
        PruningConfig.ltp([0.0, 0.08, 0.1], position="before_layer", score_denominator="initial"),
        PruningConfig.top([1.0, 0.7, 0.5], protected_token_ids=[3]),
        PruningConfig.top([0.8, 1.0, 0.5], position="after_attention", protect_first=False, score_denominator=16),
        PruningConfig.dense(),
    ],
)
def test_any_pruning_file(json_of, tiny_bert, text_file, tmp_path, config):
    path = tmp_path / "pruning.json"
    path.write_text(json.dumps(config.to_dict()))
    result = json_of("bench", tiny_bert, "--text", text_file, "--pruning", path, "--repeats", 1)
    assert result["pruning"] == config.to_dict() | {"origin": f"from {path}"}
    assert (result["flops"]["pruned"] < result["flops"]["packed"]) == (not config.is_dense)


def test_thresholds(json_of, tiny_bert, text_file):
    result = json_of("bench", tiny_bert, "--text", text_file, "--thresholds", "0.05,0.1,0.1", "--repeats", 1)
    assert result["pruning"]["criterion"] == "threshold" and result["pruning"]["thresholds"] == [0.05, 0.1, 0.1]


def test_a_checkpoint_with_its_own_pruning(json_of, tiny_bert, tmp_path):
    import tokprune_kernels as tk

    config = PruningConfig.top([1.0, 0.5, 0.5])
    tk.PrunedBertModel.from_pretrained(tiny_bert, pruning=config).save_pretrained(tmp_path / "pruned")
    result = json_of("bench", tmp_path / "pruned", "--lengths", "8,5", "--repeats", 1)
    assert result["pruning"] == config.to_dict() | {"origin": "from the checkpoint"}
    assert result["model"]["class"] == "BertModel", "the baseline is the plain Hugging Face model"


def _broken(name, break_output):
    """Return Comparison.run, with the outputs of one contender spoilt."""
    run = comparison.Comparison.run

    def spoilt(self, contender, batch, **options):
        output = run(self, contender, batch, **options)
        if contender == name:
            with torch.inference_mode():
                break_output(output)
        return output

    return spoilt


def _shift_states(output):
    output["last_hidden_state"] += 1e-2
    if output.hidden_states:
        output["hidden_states"] = (*output.hidden_states[:-1], output.hidden_states[-1] + 1e-2)


def _turn_nan(output):
    output["last_hidden_state"].fill_(float("nan"))


def _keep_another(output):
    if "pruning" in output:
        kept = output["pruning"].kept_mask.clone()
        kept[-1] = kept[0]
        output["pruning"] = output["pruning"]._replace(kept_mask=kept)


@pytest.mark.parametrize(
    "name, break_output, words",
    [
        ("packed", _shift_states, "packed dense = Hugging Face"),
        ("packed", _turn_nan, "packed dense = Hugging Face"),
        ("pruned", _shift_states, "pruned = plain PyTorch"),
        ("pruned", _turn_nan, "timed call = checked call"),
        ("pruned", _keep_another, f"not at layer {LAYERS - 1}"),
    ],
)
def test_wrong_results_are_not_timed(tokprune, tiny_bert, tmp_path, monkeypatch, name, break_output, words):
    monkeypatch.setattr(comparison.Comparison, "run", _broken(name, break_output))
    monkeypatch.setattr("tokprune_kernels.cli.measurement.interleave", lambda *args, **options: pytest.fail("timed"))
    path = tmp_path / "result.json"
    code, _, err = tokprune("bench", tiny_bert, "--lengths", "9,4", "--thresholds", "0,0.1,0.12", "--json", path)
    assert code == 1 and "nothing was timed" in err and words in err and err.count("\n") == 1
    assert not path.exists()


@pytest.mark.parametrize("position", ["after_attention", "before_layer"])
@pytest.mark.parametrize("row", range(LAYERS + 1))
def test_any_row_of_kept_tokens_is_checked(tiny_bert, position, row):
    config = PruningConfig.top([1.0, 0.8, 0.8], position=position)
    model = load_model(str(tiny_bert)).model
    batch, contenders = random_batch([9, 6], 2, model.config, 64), comparison.Comparison(model, {"pruned": config})
    pruning = contenders.observe("pruned", batch)[1]
    assert checks.check_decisions("kept", batch, pruning, config).passed
    kept = pruning.kept_mask.clone()
    kept[row, 0, 4] ^= True
    assert not checks.check_decisions("kept", batch, pruning._replace(kept_mask=kept), config).passed


def test_shapes_that_differ_are_wrong():
    assert not checks.check_close("shape", torch.zeros(2, 3), torch.zeros(2, 1)).passed


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["--lengths", "5", "--keep-ratios", "1.0,0.5"], 2, "3 layers"),
        (["--lengths", "5", "--keep-ratios", "1.0,0.5,1.5"], 2, "(0, 1]"),
        (["--lengths", "5", "--keep-ratios", "0.5,0.5,0.5"], 2, "must be 1.0"),
        (["--lengths", "5", "--thresholds", "0.1,nan,0.1"], 2, "finite"),
        (["--lengths", "5", "--thresholds", "0.1;0.1"], 2, "not a list of numbers"),
        (["--lengths", "5", "--thresholds", "0,0,0", "--keep-ratios", "1,1,1"], 2, "not allowed with"),
        (["--lengths", "5", "--pruning", "nosuch.json"], 1, "nosuch.json"),
        (["--lengths", "65"], 2, "more than 64"),
        (["--lengths", "5,,6"], 2, "whole number"),
        (["--lengths", "0"], 2, "whole number"),
        (["--lengths", "5", "--repeats", "-1"], 2, "whole number"),
        (["--lengths", "5", "--batch", "two"], 2, "whole number"),
        (["--lengths", "5", "--dtype", "int8"], 2, "invalid choice"),
        (["--lengths", "5", "--max-length", "100"], 1, "64 positions"),
        (["--text", "nosuch.txt"], 1, "nosuch.txt"),
    ],
)
def test_bad_arguments_are_one_line(tokprune, tiny_bert, arguments, code, words):
    got, out, err = tokprune("bench", tiny_bert, *arguments)
    assert got == code and out == ""
    assert words in err and err.startswith("tokprune bench: error: ") and err.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00 not utf-8"])
def test_files_without_text(tokprune, tiny_bert, tmp_path, content):
    path = tmp_path / "texts.txt"
    path.write_bytes(content)
    code, _, err = tokprune("bench", tiny_bert, "--text", path)
    assert code == 1 and "texts.txt" in err and err.count("\n") == 1


@pytest.mark.parametrize("content, code", [("[1, 2]", 1), ("{", 1), ('{"nosuch": 1}', 2), ('{"criterion": "luck"}', 2)])
def test_bad_pruning_files(tokprune, tiny_bert, tmp_path, content, code):
    path = tmp_path / "pruning.json"
    path.write_text(content)
    got, _, err = tokprune("bench", tiny_bert, "--lengths", "5", "--pruning", path)
    assert got == code and err.count("\n") == 1


def test_models_that_cannot_be_loaded(tokprune, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text('{"model_type": "gpt2"}')
    for name, words in [
        ("nosuch/model", "nosuch/model"),
        (tmp_path / "empty", "empty"),
        (tmp_path / "gpt2", "gpt2"),
    ]:
        code, _, err = tokprune("bench", name, "--lengths", "5")
        assert code == 1 and words in err and err.count("\n") == 1


def test_models_that_cannot_be_pruned(tokprune, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=20, n_positions=64, n_embd=32, n_layer=2, n_head=2)
    transformers.GPT2Model(config).save_pretrained(tmp_path)
    code, _, err = tokprune("bench", tmp_path, "--lengths", "5")
    assert code == 1 and "cannot prune" in err and "bert" in err and err.count("\n") == 1
