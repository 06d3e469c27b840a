"""`tokprune show`: what it draws is what the model keeps."""

import pytest
import tokprune_kernels as tk
import torch
import transformers

from .conftest import LAYERS

TEXT = "the cat sat on a mat"
RATIOS = ("--keep-ratios", "1.0,0.6,0.4")


def test_alive_and_answers_are_the_models(json_of, tiny_classifier):
    result = json_of("show", tiny_classifier, TEXT, "rain fell", *RATIOS)
    model = tk.PrunedBertForSequenceClassification.from_pretrained(tiny_classifier, pruning=tk.PruningConfig.top([1.0, 0.6, 0.4])).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_classifier)
    for shown, text in zip(result["texts"], (TEXT, "rain fell"), strict=True):
        batch = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            out = model(batch["input_ids"], output_pruning=True)
            model.set_pruning(None)
            dense = model(batch["input_ids"]).logits[0].softmax(0)
            model.set_pruning(tk.PruningConfig.top([1.0, 0.6, 0.4]))
        assert shown["tokens"] == ["[CLS]", *text.split(), "[SEP]"]
        assert shown["alive"] == out.pruning.kept_mask[:, 0].tolist()
        assert shown["importance"] == [pytest.approx(row, abs=1e-6) for row in out.pruning.importance[:, 0].tolist()]
        pruned = out.logits[0].softmax(0)
        for answer, expected in ((shown["answers"]["pruned"], pruned), (shown["answers"]["dense"], dense)):
            assert answer == {"label": model.config.id2label[int(expected.argmax())], "probability": pytest.approx(float(expected.max()), abs=1e-6)}


def test_a_line_for_every_layer_that_has_fewer(tokprune, tiny_classifier):
    code, out, errors = tokprune("show", tiny_classifier, TEXT, *RATIOS)
    assert code == 0, errors
    head, blank, title, *drawn = out.rstrip().splitlines()
    assert head.startswith("pruning  keep ratios 1 0.6 0.4") and not blank
    assert title.startswith("8 tokens, 2 at the end, dense: LABEL_") and ", pruned: LABEL_" in title
    assert [line[:12].strip() for line in drawn] == ["in layer 1", "in layer 2", "in layer 3"]
    assert drawn[0][14:] == TEXT
    left = [sum(word in TEXT.split() for word in line[14:].split()) for line in drawn]
    assert left[0] == 6 and left[0] > left[1] > left[2], "word by word, [CLS] not among them"


def test_texts_of_a_file_on_a_model_without_a_head(tokprune, tiny_bert, text_file):
    code, out, errors = tokprune("show", tiny_bert, "--text", text_file, "--max-texts", 2, "--thresholds", "0,0,9")
    assert code == 0, errors
    titles = [line for line in out.splitlines() if "tokens," in line]
    assert len(titles) == 2 and all(title.endswith("1 at the end") for title in titles)
    assert out.count("at the end  ·") == 2 and out.count("in layer") == 2


def test_a_regression_says_its_number(tokprune, tiny_bert, tmp_path):
    model = transformers.BertForSequenceClassification.from_pretrained(tiny_bert, num_labels=1)
    model.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    code, out, _ = tokprune("show", tmp_path, TEXT, *RATIOS)
    assert code == 0 and "dense: " in out and "%" not in out


@pytest.mark.parametrize("given", [(), (TEXT, "--text", "x")])
def test_texts_or_a_file(tokprune, tiny_bert, given):
    code, _, errors = tokprune("show", tiny_bert, *given)
    assert code == 2 and "give texts, or a file of them with --text, and not both" in errors


def test_what_cannot_be_shown(tokprune, tiny_bert):
    code, _, errors = tokprune("show", tiny_bert, TEXT, "--keep-ratios", ",".join(["1.0"] * (LAYERS + 1)))
    assert code == 2 and "pruning" in errors
    code, _, errors = tokprune("show", tiny_bert, TEXT, "--max-length", 65)
    assert code == 1 and "more than the 64 positions" in errors
