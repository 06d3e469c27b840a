"""Pairs of texts: read from files, told apart by token_type_ids in every model, both drawn."""

import gzip
import json

import pytest
import tokprune_kernels as tk
import torch
import transformers
from tokprune_kernels.cli.batches import encode_texts
from tokprune_kernels.cli.errors import CliError
from tokprune_kernels.cli.texts import Texts, read_texts

from .labelled import write_rows

PAIRS = [("the cat sat .", "rain fell and then the cats sat on a mat ."), ("it slept while the rain fell", "a mat")]
RATIOS = [1.0, 0.6, 0.4]
GIVEN = ("--keep-ratios", "1.0,0.6,0.4")


@pytest.fixture(scope="module")
def classifier(tiny_classifier, tmp_path_factory):
    """A folder with a classifier whose answers hang on which text a token is of."""
    folder = tmp_path_factory.mktemp("classifier")
    model = transformers.BertForSequenceClassification.from_pretrained(tiny_classifier)
    with torch.no_grad():
        model.bert.embeddings.token_type_embeddings.weight.normal_()
        model.classifier.weight.normal_()
    model.save_pretrained(folder)
    names = ["input_ids", "token_type_ids", "attention_mask"]  # as BERT's own tokenizers have them
    transformers.AutoTokenizer.from_pretrained(tiny_classifier, model_input_names=names).save_pretrained(folder)
    return folder


@pytest.fixture
def pair_file(tmp_path):
    write_rows(tmp_path / "pairs.jsonl", [{"text": one, "text_pair": other, "label": 0} for one, other in PAIRS])
    return tmp_path / "pairs.jsonl"


@pytest.mark.parametrize("names", [("text", "text_pair"), ("sentence1", "sentence2"), ("question", "sentence2"), ("premise", "hypothesis")])
def test_files_of_pairs(tmp_path, names):
    write_rows(tmp_path / "a.jsonl", [dict(zip(names, pair, strict=True)) for pair in PAIRS])
    expected = Texts(*map(list, zip(*PAIRS, strict=True)))
    assert read_texts(tmp_path / "a.jsonl") == expected
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"\n" + (tmp_path / "a.jsonl").read_bytes()))
    assert read_texts(tmp_path / "b.jsonl.gz") == expected
    assert read_texts(tmp_path / "b.jsonl.gz", 1) == expected[:1]


def test_files_of_single_texts(tmp_path):
    write_rows(tmp_path / "a.jsonl", [{"sentence": "a cat", "label": 1}, {"sentence": " a mat"}])
    assert read_texts(tmp_path / "a.jsonl") == Texts(["a cat", " a mat"])
    (tmp_path / "a.txt").write_text('a cat \n\n{"text": "a mat"}\n')
    assert read_texts(tmp_path / "a.txt") == Texts(["a cat", '{"text": "a mat"}'])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": "a"}\n{"text": 3}\n', "line 2: no text in the field 'text', but 3"),
        (b'{"text": "a"}\n\n{"text": "b", "text_pair": "c"}\n', "line 1: no text in the field 'text_pair', but null"),
        (b'{"words": "a"}\n', "has no field with a text: looked for text, sentence, "),
        (b"the cat\n", "line 1: not JSON, one object a line"),
        (b'["the cat"]\n', "line 1: not a JSON object, but"),
        (b"\n", "holds no text"),
        (b"\xff\xfe", "line 1: not UTF-8 (byte 0xff at place 0): save the file as UTF-8"),
    ],
)
def test_lines_that_are_none(tmp_path, content, said):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(CliError, match="a.jsonl") as caught:
        read_texts(tmp_path / "a.jsonl")
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("spoil", [lambda data: b"text", lambda data: data[:-12], lambda data: data[:20] + b"\0\0\0\0" + data[24:]])
def test_broken_archives(tmp_path, spoil):
    (tmp_path / "a.jsonl.gz").write_bytes(spoil(gzip.compress(b'{"text": "a cat sat on a mat and fell"}\n')))
    with pytest.raises(CliError, match="cannot read .*a.jsonl.gz"):
        read_texts(tmp_path / "a.jsonl.gz")


def test_bench(json_of, tokprune, classifier, pair_file):
    options = ("--text", pair_file, "--repeats", 1, *GIVEN)
    result = json_of("bench", classifier, *options)
    assert all(check["passed"] for check in result["checks"])
    data = result["input"]
    assert data["pairs"] and (data["texts"], data["longest"]) == (2, 3 + 4 + 12)
    assert "2 pairs of texts (" in tokprune("bench", classifier, *options)[1]


def test_token_types_reach_the_contenders(classifier):
    """Of pairs, and of models that have them; single texts are all of one type."""
    tokenizer, config = transformers.AutoTokenizer.from_pretrained(classifier), transformers.AutoConfig.from_pretrained(classifier)
    texts = Texts(*map(list, zip(*PAIRS, strict=True)))
    (batch,) = encode_texts(tokenizer, texts, 2, 64, config)
    assert batch["token_type_ids"].sum(dim=1).tolist() == [12 + 1, 2 + 1]
    assert set(encode_texts(tokenizer, Texts(texts.first), 2, 64, config)[0]) == {"input_ids", "attention_mask"}
    for untold in (transformers.DistilBertConfig(), transformers.RobertaConfig(type_vocab_size=1)):
        assert set(encode_texts(tokenizer, texts, 2, 64, untold)[0]) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("from_file", [False, True])
def test_show(json_of, classifier, pair_file, from_file):
    (one, other), (two, last) = PAIRS
    given = ("--text", pair_file) if from_file else (one, two, "--pair", other, "--pair", last)
    result = json_of("show", classifier, *given, *GIVEN)
    tokenizer = transformers.AutoTokenizer.from_pretrained(classifier)
    model = tk.PrunedBertForSequenceClassification.from_pretrained(classifier, pruning=tk.PruningConfig.top(RATIOS)).eval()
    plain = transformers.BertForSequenceClassification.from_pretrained(classifier).eval()
    for shown, pair in zip(result["texts"], PAIRS, strict=True):
        inputs = tokenizer(*pair, return_tensors="pt")
        with torch.no_grad():
            out, dense = model(**inputs, output_pruning=True), plain(**inputs)
        assert (shown["text"], shown["text_pair"]) == pair
        assert shown["text_of"] == inputs.sequence_ids(0) and shown["alive"] == out.pruning.kept_mask[:, 0].tolist()
        for name, logits in (("pruned", out.logits), ("dense", dense.logits)):
            assert shown["answers"][name]["probability"] == pytest.approx(float(logits.softmax(1).max()), abs=1e-5)


def test_both_texts_are_drawn(tokprune, classifier):
    one, other = PAIRS[0]
    code, out, errors = tokprune("show", classifier, one, "--pair", other, *GIVEN)
    assert code == 0, errors
    drawn = out.rstrip().splitlines()[3:]
    assert drawn[0] == f"  in layer 1  {one}" and drawn[1] == " " * 14 + other
    assert len(drawn) % 2 == 0 and all(line[:14].strip() == "" for line in drawn[1::2])
    left = ["".join(drawn[number][14:] + drawn[number + 1][14:]).count("·") for number in range(0, len(drawn), 2)]
    assert left[0] == 0 and left == sorted(left) and left[-1] > 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("a", "--pair", "b", "--pair", "c"), "once for each text: got 2 for 1"),
        (("--text", "x", "--pair", "b"), "--pair goes with texts that are given here"),
        (("--pair", "b"), "give texts, or a file of them"),
    ],
)
def test_pairs_that_do_not_fit(tokprune, classifier, given, said):
    code, _, errors = tokprune("show", classifier, *given)
    assert code == 2 and said in errors and errors.count("\n") == 1


def test_evaluation_times_pairs(json_of, classifier, pair_file):
    """Checked against plain PyTorch first, which has to be told the token types, too."""
    pytest.importorskip("datasets", reason="needs datasets")
    result = json_of("eval", classifier, "--data", pair_file, "--repeats", 1, *GIVEN)
    assert all(check["passed"] for check in result["timing"]["checks"])


def test_calibration_on_pairs_without_labels(json_of, classifier, tmp_path):
    pytest.importorskip("datasets", reason="needs datasets")
    rows = [{"text": one, "text_pair": other} for one, other in PAIRS * 4]
    write_rows(tmp_path / "pairs.jsonl", rows)
    given = ("calibrate", classifier, "--speedup", 1.2)
    by_text, by_data = (json_of(*given, option, tmp_path / "pairs.jsonl") for option in ("--text", "--data"))
    for name in ("pruning", "faithfulness"):
        assert by_text[name] == by_data[name], json.dumps(by_text[name])


def test_no_room_for_a_text(tokprune, classifier):
    code, _, errors = tokprune("show", classifier, "the cat", "--max-length", 2)
    assert code == 1 and "--max-length 2 leaves no room for a text" in errors and "give 3 or more" in errors
