"""Scores by hand, and FLOPs against what the kept lengths say."""

import pytest
import tokprune_kernels as tk
import torch
from tokprune_train.evaluation import Evaluation, evaluate, score
from tokprune_train.report import evaluation_pairs
from transformers import BertConfig, BertForSequenceClassification

from .needles import COLLATOR, kept_shares, needle_rows, tiny_model

PRUNING = tk.PruningConfig.top([1.0, 0.6, 0.5])


def test_accuracy_and_f1_by_hand():
    """One true positive, one false positive, two false negatives, one true negative."""
    logits = torch.tensor([[0.0, 1.0], [0.0, 2.0], [1.0, 0.0], [3.0, -1.0], [0.5, 0.0]])
    metrics = score(logits, torch.tensor([1, 0, 1, 1, 0]))
    assert metrics == {"accuracy": pytest.approx(2 / 5), "f1": pytest.approx(2 * 1 / (2 + 3))}


def test_several_classes_have_no_f1():
    logits = torch.eye(3)
    assert score(logits, torch.tensor([0, 1, 1])) == {"accuracy": pytest.approx(2 / 3)}


def test_f1_where_class_one_never_occurs():
    assert score(torch.tensor([[1.0, 0.0]]), torch.tensor([0])) == {"accuracy": 1.0, "f1": 0.0}


def test_correlations_by_hand():
    """Pearson of (1, 2, 3, 10) with (1, 2, 4, 3); Spearman is that of the ranks (0, 1, 2, 3) and (0, 1, 3, 2): 1 - 6*2/(4*15)."""
    metrics = score(torch.tensor([[1.0], [2.0], [3.0], [10.0]]), torch.tensor([1.0, 2.0, 4.0, 3.0]))
    covariance = (-3 * -1.5) + (-2 * -0.5) + (-1 * 1.5) + (6 * 0.5)
    assert metrics["pearson"] == pytest.approx(covariance / (50 * 5) ** 0.5)
    assert metrics["spearman"] == pytest.approx(0.8)


def test_equal_values_share_their_rank():
    """Ranks (0, 1.5, 1.5, 3) against (0, 1, 2, 3)."""
    metrics = score(torch.tensor([[1.0], [5.0], [5.0], [9.0]]), torch.tensor([0.0, 1.0, 2.0, 3.0]))
    assert metrics["spearman"] == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


def test_constant_answers_are_worth_nothing():
    assert score(torch.ones(3, 1), torch.tensor([1.0, 2.0, 3.0])) == {"pearson": 0.0, "spearman": 0.0}


def test_everything_is_of_the_model_that_really_removes():
    """The evaluation of batches sorted by length = that of all rows in one batch, put together by hand."""
    model, rows = tiny_model(), needle_rows(50, seed=3)
    model.set_pruning(PRUNING)
    evaluation = evaluate(model, rows, COLLATOR, max_length=40, batch_size=8)

    batch = COLLATOR(rows)
    with torch.no_grad():
        out = model.eval()(batch["input_ids"], attention_mask=batch["attention_mask"], output_pruning=True)
    lengths = out.pruning.kept_lengths
    initial = lengths[0]
    pruned = tk.flops.encoder_flops(lengths, model.config).sum()
    by_length = initial.sort(descending=True).values.split(8)
    longest = sum(len(part) * tk.flops.dense_flops(part[:1], model.config).sum() for part in by_length)
    assert evaluation.flops_reduction == pytest.approx(
        {
            "packed": float(tk.flops.dense_flops(initial, model.config).sum() / pruned),
            "longest": float(longest / pruned),
            "maximum": float(50 * tk.flops.dense_flops(torch.tensor([40]), model.config).sum() / pruned),
        }
    )
    assert 1 < evaluation.flops_reduction["packed"] < evaluation.flops_reduction["longest"] < evaluation.flops_reduction["maximum"]
    assert evaluation.tokens_alive == pytest.approx((lengths / initial).mean(dim=1).tolist())
    assert evaluation.metrics["accuracy"] == float((out.logits.argmax(dim=1) == batch["labels"]).double().mean())
    assert (evaluation.rows, evaluation.max_length) == (50, 40)
    assert Evaluation(**evaluation.to_dict()) == evaluation


def test_dense_is_one():
    evaluation = evaluate(tiny_model(), needle_rows(9, seed=4), COLLATOR, 32)
    assert evaluation.flops_reduction["packed"] == 1.0
    assert evaluation.tokens_alive == [1.0] * 4


def test_regression():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=1
    )
    model = tk.prune_model(BertForSequenceClassification(config), None)
    rows = [row | {"labels": 0.1 * number} for number, row in enumerate(needle_rows(12, seed=5))]
    metrics = evaluate(model, rows, COLLATOR, 32, batch_size=5).metrics
    batch = COLLATOR(rows)
    with torch.no_grad():
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert metrics == pytest.approx(score(logits, batch["labels"]), abs=1e-5)
    assert metrics["pearson"] != 0


def test_progress_is_told():
    seen = []
    evaluate(tiny_model(), needle_rows(5, seed=6), COLLATOR, 32, batch_size=2, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_no_rows():
    with pytest.raises(ValueError, match="no rows"):
        evaluate(tiny_model(), [], COLLATOR, 32)


def test_report_says_it_all():
    evaluation = Evaluation({"accuracy": 0.5}, {"packed": 2.0, "longest": 3.0, "maximum": 4.0}, [1.0, 0.25], 10, 128)
    text = dict(evaluation_pairs(evaluation))
    assert text["score"].startswith("accuracy 50.00 % on 10 rows")
    assert "2.00x than packed dense" in text["fewer FLOPs"] and "4.00x than padded to 128" in text["fewer FLOPs"]
    assert text["tokens alive"].startswith("1.00 0.25 ")


def test_needles_and_noise_are_told_apart():
    """The measure of the needle test: all of both where nothing is pruned, few of both where only first tokens stay."""
    model, rows = tiny_model(), needle_rows(20, seed=7)
    assert kept_shares(model, rows) == (1.0, 1.0)
    model.set_pruning(tk.PruningConfig.top([1.0, 1e-9, 1.0]))
    assert kept_shares(model, rows) == (0.0, 0.0)
