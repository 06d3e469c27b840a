"""Where thresholds start: the scores that a dense model gives, and lines through their quantiles."""

import pytest
import tokprune_kernels as tk
import torch
from tokprune_train.calibration.scores import quantile_line, sample_scores

from .needles import COLLATOR, needle_rows, tiny_model

PRUNING = tk.PruningConfig.top([1.0, 0.5, 0.5])


def test_scores_are_those_of_all_tokens_but_the_first():
    model, rows = tiny_model(), needle_rows(10, seed=1)
    model.set_pruning(PRUNING)
    scores = sample_scores(model, rows, COLLATOR, batch_size=4)
    assert scores.shape == (3, sum(len(row["input_ids"]) - 1 for row in rows))
    assert tk.PruningConfig.from_dict(model.config.pruning) == PRUNING, "the model is left as it was"

    model.set_pruning(None)
    batch = COLLATOR([max(rows, key=lambda row: len(row["input_ids"]))])  # the longest text comes first
    with torch.no_grad():
        first = model(batch["input_ids"], attention_mask=batch["attention_mask"], output_pruning=True).pruning.importance
    torch.testing.assert_close(scores[:, : first.shape[2] - 1], first[:, 0, 1:], rtol=1e-4, atol=1e-7)


def test_denominator_of_the_scores():
    model, rows = tiny_model(), [row for row in needle_rows(60, seed=1) if len(row["input_ids"]) == 20]
    of_length, of_forty = (sample_scores(model, rows, COLLATOR, denominator) for denominator in ("kept", 40))
    torch.testing.assert_close(of_length, 2 * of_forty)


def test_quantile_line_by_hand():
    """Layers of scores 0..100 and 0..200: half of final 0.4 in the first, all of it in the second."""
    scores = torch.stack([torch.arange(101.0), 2 * torch.arange(101.0)])
    assert quantile_line(scores, 0.4) == pytest.approx([20.0, 80.0])
    assert quantile_line(scores, 0.0) == [0.0, 0.0]


@pytest.mark.parametrize("final", [-0.1, 1.0, float("nan")])
def test_share_out_of_range(final):
    with pytest.raises(ValueError, match="final must be"):
        quantile_line(torch.rand(2, 5), final)


def test_nothing_to_look_at():
    with pytest.raises(ValueError, match="no tokens"):
        quantile_line(torch.zeros(2, 0), 0.3)
