"""Checkpoints that mean harm, or are broken: nothing of theirs is run, unpickled or read from elsewhere, and every one is a sentence."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from tokprune_kernels.cli import loading

TEXT = "the cat sat"


@pytest.fixture
def folder(tiny_classifier, tmp_path):
    """A copy of a classifier's folder, to be spoiled."""
    shutil.copytree(tiny_classifier, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def commands(folder, text_file, tmp_path):
    """Every command that loads a model, up to where it does."""
    (tmp_path / "rows.jsonl").write_text('{"text": "the cat", "label": 0}\n{"text": "a mat", "label": 1}\n')
    return {
        "show": ("show", folder, TEXT),
        "bench": ("bench", folder, "--text", text_file, "--repeats", 1),
        "demo": ("demo", "--model", folder),
        "calibrate": ("calibrate", folder, "--text", text_file, "--speedup", 1.2),
        "eval": ("eval", folder, "--data", tmp_path / "rows.jsonl", "--no-timing"),
        "train": ("train", "hard", "--model", folder, "--data", tmp_path / "rows.jsonl", "--eval-split", "train", "--keep-ratios", "1,1,1", "--batch", 2, "--output", tmp_path / "out"),
    }


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refused(tokprune, command):
    code, out, errors = tokprune(*command)
    assert code in (1, 2) and not out and errors.count("\n") == 1 and len(errors) < 700, errors[:2000]
    return errors


class Harm:
    """What is run where it is unpickled."""

    def __init__(self, done):
        self.done = done

    def __reduce__(self):
        return Path.touch, (self.done,)


@pytest.mark.parametrize("command", ["show", "bench", "calibrate", "eval", "train"])
def test_code_of_a_checkpoint_is_never_run(tokprune, folder, commands, command, monkeypatch):
    """And nobody is asked: the model and the tokenizer that transformers has for such a folder are used, or it is refused."""
    monkeypatch.setattr("builtins.input", lambda *asked: pytest.fail("asked"))
    done = folder / "done"
    (folder / "code.py").write_text(f"import pathlib; pathlib.Path({str(done)!r}).touch()\nclass Any: pass\n")
    names = ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification")
    change(folder / "config.json", auto_map=dict.fromkeys(names, "code.Any"))
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Any", "code.Any"]})
    code, _, errors = tokprune(*commands[command])
    assert code == 0, errors
    shutil.rmtree(folder.parent / "out", ignore_errors=True)
    change(folder / "config.json", model_type="nobody_knows")
    assert "nobody_knows" in refused(tokprune, commands[command])
    assert not done.exists()


def test_code_of_a_tokenizer_that_nobody_knows(tokprune, folder, commands, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *asked: pytest.fail("asked"))
    (folder / "code.py").write_text(f"import pathlib; pathlib.Path({str(folder / 'done')!r}).touch()\nclass Any: pass\n")
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Any", None]}, tokenizer_class="Any")
    (folder / "tokenizer.json").unlink()
    assert "cannot load the tokenizer of" in refused(tokprune, commands["show"])
    assert not (folder / "done").exists()


@pytest.mark.parametrize("save", [torch.save, lambda held, path: path.write_bytes(pickle.dumps(held))], ids=["torch", "pickle"])
def test_nothing_is_unpickled(tokprune, folder, commands, save):
    (folder / "model.safetensors").unlink()
    save({"bert.pooler.dense.bias": Harm(folder / "done"), "enough": list(range(100_000))}, folder / "pytorch_model.bin")
    for command in ("show", "eval", "train"):
        assert "cannot load " in refused(tokprune, commands[command])
    assert not (folder / "done").exists()


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"num_hidden_layers": 10**12}, "num_hidden_layers in its config.json must be a whole number from 1 to 10000, got 1000000000000"),
        ({"num_hidden_layers": 10_000}, "the sizes in its config.json are those of a model of"),
        ({"hidden_size": 2**30}, "the sizes in its config.json are those of a model of"),
        ({"hidden_size": -32}, "hidden_size in its config.json must be a whole number from 1 to 2147483647, got -32"),
        ({"intermediate_size": 0}, "intermediate_size in its config.json"),
        ({"vocab_size": 10**30}, "got one of 31 digits"),
        ({"vocab_size": 2**31 - 1}, "the one does not belong to the other"),
        ({"max_position_embeddings": 2**31 - 1}, "the one does not belong to the other"),
        ({"num_attention_heads": 0}, "num_attention_heads in its config.json"),
        ({"num_attention_heads": 2.5}, "num_attention_heads in its config.json"),
        ({"hidden_size": [32] * 1000}, "got a list"),
        ({"hidden_size": True}, "got True"),
        ({"num_labels": 10**12}, "num_labels in its config.json must be a whole number from 0 to 1000000"),
        ({"layer_norm_eps": "small"}, "Validation error for field 'layer_norm_eps': TypeError"),
        ({"hidden_act": "nosuch"}, "nosuch"),
        ({"architectures": 5}, "cannot load model"),
        ({"id2label": 5}, "cannot load model"),
        ({"model_type": ["bert"]}, "cannot load model"),
        ({"model_type": ""}, "has no config.json with a model_type"),
        ({"dtype": "os.system"}, "cannot load model"),
        ({"is_decoder": True}, "decoder"),
        ({"attn_implementation": "nobody/code"}, "asks for code from elsewhere, 'nobody/code', which is not run"),
    ],
)
def test_configurations_that_cannot_be(tokprune, folder, commands, fields, said):
    change(folder / "config.json", **fields)
    for command in ("show", "bench", "train"):
        assert said in refused(tokprune, commands[command])


@pytest.mark.parametrize("fields", [{"return_dict": False}, {"output_attentions": True}, {"output_hidden_states": True}, {"chunk_size_feed_forward": 7}])
def test_fields_that_belong_to_a_call(tokprune, folder, commands, fields):
    change(folder / "config.json", **fields)
    for command in ("show", "bench", "eval"):
        code, _, errors = tokprune(*commands[command])
        assert code == 0, errors


@pytest.mark.parametrize("text", ["[" * 100_000, '{"model_type": "bert", "a": ' + "9" * 5000 + "}", "", "\x00", "[]", '{"a": ' * 100_000])
def test_configurations_that_are_none(tokprune, folder, commands, text):
    (folder / "config.json").write_text(text)
    for command in ("show", "bench"):
        assert "model" in refused(tokprune, commands[command])


@pytest.mark.parametrize(
    "pruning, said",
    [
        ({"thresholds": [float("nan")] * 3}, "thresholds[0] must be finite, got nan"),
        ({"thresholds": [float("inf")] * 3}, "thresholds[0] must be finite, got inf"),
        ({"thresholds": [10**400] * 3}, "thresholds must hold numbers that a float can be, got one of 401 digits"),
        ({"thresholds": {"0": 1}}, "thresholds must be a list of numbers"),
        ({"criterion": "topk", "keep_ratios": [1.0, 2.0, 1.0]}, "keep_ratios[1] must be in (0, 1]"),
        ({"thresholds": [0.1] * 4}, "the model has 3 layers, got 4 entries"),
        ({"thresholds": [0.1] * 3, "score_denominator": 10**400}, "score_denominator must be at most 2147483647"),
        ({"thresholds": [0.1] * 3, "protected_token_ids": [2**70]}, "protected_token_ids must hold input ids of at most 2147483647"),
        ({"pruning": {"pruning": {}}}, "unknown key(s) in the pruning description: pruning"),
        ([[[]]], "a pruning description must be a dict"),
        ("dense", "a pruning description must be a dict"),
    ],
)
@pytest.mark.parametrize("in_file", [True, False])
def test_prunings_that_cannot_be(tokprune, folder, commands, tmp_path, pruning, said, in_file):
    """In a checkpoint, and in the file of --pruning."""
    command = commands["show"]
    if in_file:  # which is read strictly
        (tmp_path / "pruning.json").write_text(json.dumps({"pruning": pruning} if "pruning" in pruning else pruning))
        command = (*command, "--pruning", tmp_path / "pruning.json")
        past = {"got nan": "NaN is no JSON", "got inf": "Infinity is no JSON", "digits": "past what 64 bits", "at most": "past what 64 bits"}
        past |= {"must be a dict": "not an object of PruningConfig fields"}
        said = next((strictly for loosely, strictly in past.items() if loosely in said), said)
    else:
        change(folder / "config.json", pruning=pruning)
    assert said in refused(tokprune, command)


def test_a_pruning_file_nested_without_end(tokprune, commands, tmp_path):
    (tmp_path / "pruning.json").write_text('{"pruning": ' * 100_000)
    assert "nested too deeply" in refused(tokprune, (*commands["show"], "--pruning", tmp_path / "pruning.json"))


def test_no_path_leads_out_of_a_checkpoint(tokprune, folder, commands):
    shutil.copytree(folder, folder.parent / "other")
    (folder / "model.safetensors").unlink()
    state = transformers.AutoModelForSequenceClassification.from_pretrained(folder.parent / "other").state_dict()
    for outside in ("../other/model.safetensors", str(folder.parent / "other" / "model.safetensors"), 7):
        index = {"metadata": {}, "weight_map": dict.fromkeys(state, outside)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        assert "which is no file of that folder" in refused(tokprune, commands["show"])


@pytest.mark.parametrize("command", ["show", "bench", "calibrate", "eval", "train"])
def test_tokens_without_an_embedding(tokprune, folder, commands, command):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["cats", "dogs"])
    tokenizer.save_pretrained(folder)
    size = len(tokenizer)
    said = f"numbers its tokens up to {size - 1}, and the model has embeddings for {size - 2} (vocab_size in its config.json)"
    assert said in refused(tokprune, commands[command])


def test_tokens_around_a_text_without_an_embedding(tokprune, folder, commands):
    path = folder / "tokenizer.json"
    change(path, post_processor={"type": "BertProcessing", "cls": ["[CLS]", 10**6], "sep": ["[SEP]", 3]})
    assert "numbers its tokens up to 1000000" in refused(tokprune, commands["show"])


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, (2**40).to_bytes(8, "little") + b"{}", b"\x02" + b"\0" * 7 + b"{}", None])
def test_weights_that_are_none(tokprune, folder, commands, content):
    """Cut off, with a header that has no end, or without any tensor."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)
    assert "cannot load model" in refused(tokprune, commands["show"])


def test_tokens_without_an_embedding_in_the_demo(tokprune, minilm_path, tmp_path):
    shutil.copytree(minilm_path, tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_path)
    tokenizer.add_tokens(["tokprunes"])
    tokenizer.save_pretrained(tmp_path / "model")
    assert "and the model has embeddings for 30522" in refused(tokprune, ("demo", "--model", tmp_path / "model"))


@pytest.mark.parametrize("fields", [{"model_max_length": 1}, {"model_max_length": -5}, {"model_max_length": 0}])
def test_tokenizers_that_leave_no_room(tokprune, folder, commands, fields):
    change(folder / "tokenizer_config.json", **fields)
    assert "no text fits" in refused(tokprune, commands["show"])


def test_imports(tokprune, tmp_path, folder):
    pytest.importorskip("datasets", reason="needs datasets")
    for fields in ({"num_hidden_layers": 10**12}, {"num_hidden_layers": 9999}, {"hidden_size": -1}, {"layer_norm_eps": "small"}, {"num_labels": 10**12}):
        (folder / "config.json").write_text(json.dumps({"model_type": "ltp", "prune_mode": "absolute_threshold", "architectures": ["LTPForSequenceClassification"], **fields}))
        assert "its config.json describes no roberta" in refused(tokprune, ("import", "ltp", folder, "--output", tmp_path / "out", "--max-length", 8))
    (folder / "config.json").write_text("[" * 100_000)
    assert "cannot read" in refused(tokprune, ("import", "ltp", folder, "--output", tmp_path / "out", "--max-length", 8))


def test_the_configuration_alone(folder):
    """What the training side asks for before it loads a model."""
    assert loading.load_config(str(folder)).num_hidden_layers == 3
    change(folder / "config.json", hidden_size=-1)
    with pytest.raises(loading.CliError, match="hidden_size in its config.json"):
        loading.load_config(str(folder))
