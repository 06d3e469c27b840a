"""transformers' pipelines over pruned models of every head, from a folder and from a model in memory."""

import pytest
import tokprune_kernels as tk
import torch
import transformers

from ..models.helpers import random_bert

PRUNING = tk.PruningConfig.top([1.0, 0.5])
TEXT = "The ferry was late, so we ate the sandwiches at the [MASK]."
TASKS = {
    "feature-extraction": ("BertModel", (TEXT,), {}),
    "text-classification": ("BertForSequenceClassification", (TEXT,), {}),
    "zero-shot-classification": ("BertForSequenceClassification", (TEXT,), {"candidate_labels": ["travel", "sports"]}),
    "token-classification": ("BertForTokenClassification", (TEXT,), {}),
    "fill-mask": ("BertForMaskedLM", (TEXT,), {}),
    "question-answering": ("BertForQuestionAnswering", (), {"question": "What was late?", "context": TEXT}),
}


def of_task(task, tokenizer):
    options = {"id2label": {0: "contradiction", 1: "entailment"}, "label2id": {"contradiction": 0, "entailment": 1}} if task == "zero-shot-classification" else {}
    model = random_bert(getattr(transformers, TASKS[task][0]), num_hidden_layers=2, pad_token_id=0, **options)
    model.resize_token_embeddings(len(tokenizer))
    return model


def known(task):
    from transformers.pipelines import PIPELINE_REGISTRY

    return task in PIPELINE_REGISTRY.get_supported_tasks()


@pytest.mark.parametrize("task", TASKS)
def test_from_a_folder_as_in_memory(task, tokenizer, tmp_path, transformers_log):
    if not known(task):
        pytest.skip(f"transformers {transformers.__version__} has no pipeline for {task}")
    _, arguments, options = TASKS[task]
    model = of_task(task, tokenizer)
    model.config.mask_token_id = tokenizer.mask_token_id
    model = tk.prune_model(model, PRUNING)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    made = transformers.pipeline(task, model=model, tokenizer=tokenizer)
    loaded = transformers.pipeline(task, model=str(tmp_path))
    assert type(loaded.model).__name__ == f"Pruned{type(model).__name__}"
    assert loaded(*arguments, **options) == made(*arguments, **options)
    assert "is not supported for" not in transformers_log.text, "the pipeline knows the class"
    assert "not initialized from the model checkpoint" not in transformers_log.text


def test_the_mask_is_never_pruned(tokenizer, tmp_path):
    """The tokenizer beside the checkpoint says which it is."""
    of_task("fill-mask", tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    hardest = tk.PruningConfig.ltp([0.0, 10.0])
    model = tk.from_pretrained(tmp_path, pruning=hardest)
    assert model.config.mask_token_id == tokenizer.mask_token_id
    batch = tokenizer([TEXT, "[MASK] first, [MASK] last"], padding=True, return_tensors="pt")
    with torch.no_grad():
        kept = model(**batch, output_pruning=True).pruning.kept_mask[-1]
    first = torch.zeros_like(kept)
    first[:, 0] = True
    assert torch.equal(kept, (batch["input_ids"] == tokenizer.mask_token_id) | first)


@pytest.mark.parametrize("saved", [False, True])
def test_a_mask_that_nobody_knows_is_said(saved, tokenizer, tmp_path):
    """A folder without a tokenizer says nothing either: transformers would make one up."""
    model = tk.prune_model(of_task("fill-mask", tokenizer), PRUNING)
    if saved:
        model.save_pretrained(tmp_path)
        model = tk.from_pretrained(tmp_path)
    assert getattr(model.config, "mask_token_id", None) is None
    batch = tokenizer(TEXT, return_tensors="pt")
    with pytest.warns(UserWarning, match="which token is \\[MASK\\] is not known.*config.mask_token_id"), torch.no_grad():
        model(**batch)


def test_multiple_choice(tokenizer, tmp_path):
    model = random_bert(transformers.BertForMultipleChoice, num_hidden_layers=2, pad_token_id=0)
    model.resize_token_embeddings(len(tokenizer))
    pruned = tk.prune_model(model, PRUNING)
    pruned.save_pretrained(tmp_path)
    back = transformers.AutoModelForMultipleChoice.from_pretrained(tmp_path)
    batch = tokenizer(["What was late?"] * 2, ["The ferry.", "The sandwiches, by an hour."], padding=True, return_tensors="pt")
    batch = {name: value[None] for name, value in batch.items()}
    with torch.no_grad():
        out = back(**batch, labels=torch.tensor([1]))
        assert torch.equal(out.logits, pruned(**batch).logits) and out.loss.isfinite()


def test_a_tokenizer_without_a_class_of_its_own_is_found(tokenizer, tmp_path):
    """Hub folders may have a tokenizer.json only: the model type then says which class it is."""
    tk.prune_model(of_task("feature-extraction", tokenizer), PRUNING).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
