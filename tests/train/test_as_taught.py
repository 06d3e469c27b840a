"""Decisions by the teacher's importance: against removal where the two are the same, and by hand."""

import pytest
import tokprune_kernels as tk
import torch
from tokprune_train.calibration.as_taught import TAUGHT, answers_as_taught, kept_as_taught, lengths_as_taught
from tokprune_train.calibration.starts import nearest_start, ratio_shapes
from tokprune_train.objectives.cost import FlopsCost
from tokprune_train.objectives.distillation import prediction_distillation
from tokprune_train.teacher import teach

from .needles import COLLATOR, needle_rows, tiny_model

# Texts of 5, 0, 1 and 4 tokens.
CU_SEQLENS = torch.tensor([0, 5, 5, 6, 10], dtype=torch.int32)
IMPORTANCE = torch.tensor([0.1, 0.2, 0.4, 0.25, 0.05, 1.0, 0.1, 0.2, 0.3, 0.4])


def kept(pruning, layers=2):
    return [alive.nonzero().flatten().tolist() for alive in kept_as_taught(pruning, layers, IMPORTANCE, CU_SEQLENS)]


def test_ratios_by_hand():
    """3 of 5 and 3 of 4 tokens, then half of those, rounded up; each text's first stays."""
    halves = [0, 2, 3, 5, 6, 8, 9], [0, 2, 5, 6, 9]
    assert kept(tk.PruningConfig.top([0.6, 0.5], position="after_attention")) == [list(range(10)), *halves]
    assert kept(tk.PruningConfig.top([1.0, 0.6])) == [list(range(10)), halves[0], halves[0]]
    assert kept(tk.PruningConfig.dense()) == [list(range(10))] * 3


@pytest.mark.parametrize("denominator", ["kept", "initial", 5])
def test_thresholds_by_hand(denominator):
    """Against the shares that those alive have of their text, by the number of them that the denominator says."""
    first = {"kept": 0.21, "initial": 0.21, 5: 0.17}[denominator]
    pruning = tk.PruningConfig.ltp([first, 0.36 if denominator == "kept" else 0.31], score_denominator=denominator)
    scores = [0.1, 0.2, 0.4, 0.25, 0.05], [1.0], [0.1, 0.2, 0.3, 0.4]

    def decide(texts, threshold):
        left = []
        for text, length in zip(texts, (5, 1, 4)):
            total, scale = sum(text.values()), {"kept": 1, "initial": len(text) / length}.get(denominator, len(text) / 5)
            left.append({at: s for place, (at, s) in enumerate(text.items()) if place == 0 or s / total * scale >= threshold})
        return left

    texts, start = [], 0
    for text in scores:
        texts.append({start + place: score for place, score in enumerate(text)})
        start += len(text)
    expected = [sorted(at for text in texts for at in text)]
    for threshold in pruning.thresholds:
        texts = decide(texts, threshold)
        expected.append(sorted(at for text in texts for at in text))
    assert kept(pruning) == expected
    assert len(expected[0]) > len(expected[1]) > len(expected[2])


@pytest.fixture
def taught():
    """A model and rows whose importance is that of its own first layer."""
    model, rows = tiny_model(), needle_rows(24, seed=1)
    batch = COLLATOR(rows)
    with torch.no_grad():
        output = model.eval()(batch["input_ids"], attention_mask=batch["attention_mask"], output_pruning=True)
    for row, importance in zip(rows, output.pruning.importance[0]):
        row[TAUGHT] = importance[: len(row["input_ids"])].clone()
    return model, rows


def test_removal_where_the_layer_judges_alike(taught):
    model, rows = taught
    pruning = tk.PruningConfig.top([0.5, 1.0, 1.0], position="after_attention")
    order = sorted(range(24), key=lambda row: -len(rows[row]["input_ids"]))
    batch = COLLATOR([rows[row] for row in order])
    answers = answers_as_taught(model, pruning, rows, COLLATOR, batch_size=5)
    model.set_pruning(pruning)
    with torch.no_grad():
        removed = model(batch["input_ids"], attention_mask=batch["attention_mask"], output_pruning=True)
    torch.testing.assert_close(answers, removed.logits, rtol=1e-4, atol=1e-5)
    lengths = lengths_as_taught(pruning, 3, rows)
    assert torch.equal(lengths[:, order].long(), removed.pruning.kept_lengths) and lengths.dtype == torch.float64


def test_the_nearest_start_as_taught():
    """Where the rows are taught, the shape is fitted and chosen by what the teacher would keep; the model stays as it was."""
    model, rows = tiny_model(), needle_rows(24, seed=1)
    teach(model, rows, COLLATOR, {"teacher_logits", TAUGHT})
    model.set_pruning(tk.PruningConfig.top([1.0, 0.5, 0.5]))
    cost, shapes = FlopsCost(model.config, "after_attention"), list(ratio_shapes(3, "after_attention"))
    chosen = nearest_start(model, shapes, cost, 0.4, rows, COLLATOR)
    assert model.config.pruning == tk.PruningConfig.top([1.0, 0.5, 0.5]).to_dict()
    lengths = lengths_as_taught(chosen, 3, rows)
    assert 1 - float(cost(lengths, lengths[0])) == pytest.approx(0.4, abs=0.03)
    model.set_pruning(tk.PruningConfig.dense())
    dense = answers_as_taught(model, tk.PruningConfig.dense(), rows, COLLATOR)
    by_own = nearest_start(model, shapes, cost, 0.4, [{k: v for k, v in row.items() if k != TAUGHT} for row in rows], COLLATOR)
    apart = [float(prediction_distillation(answers_as_taught(model, one, rows, COLLATOR), dense)) for one in (chosen, by_own)]
    assert apart[0] <= apart[1]
