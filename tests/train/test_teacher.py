"""What the dense model says is what it would say in the batch itself."""

import pytest
import tokprune_kernels as tk
import torch
from tokprune_train.data.encoding import PER_TEXT, PER_TOKEN, model_inputs
from tokprune_train.saliency import saliency
from tokprune_train.teacher import teach

from .needles import COLLATOR, needle_rows, tiny_model

ALL = {*PER_TEXT, *PER_TOKEN}
PRUNING = tk.PruningConfig.top([1.0, 0.5, 0.5])


@pytest.fixture
def rows():
    return needle_rows(11, seed=1)


def test_answers_are_the_dense_models(rows):
    """In the order of the rows, whatever batches it was asked in, though it is set to prune; and it is left as it was."""
    model = tiny_model()
    batch = COLLATOR(rows)
    with torch.no_grad():
        dense = model.eval()(batch["input_ids"], attention_mask=batch["attention_mask"], output_pruning=True, output_hidden_states=True)
        pooled = model.base_model(batch["input_ids"], attention_mask=batch["attention_mask"]).pooler_output
    salient = saliency(model, model_inputs(batch)).split(batch["attention_mask"].sum(dim=1).tolist())
    model.set_pruning(PRUNING)
    told = []
    teach(model, rows, COLLATOR, ALL, batch_size=4, progress=lambda done, of: told.append((done, of)))
    assert told == [(4, 11), (8, 11), (11, 11)]
    assert tk.PruningConfig.from_dict(model.config.pruning) == PRUNING
    for place, row in enumerate(rows):
        torch.testing.assert_close(row["teacher_logits"], dense.logits[place], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(row["teacher_state"], pooled[place], rtol=1e-4, atol=1e-6)
        layers = torch.stack([states[place, 0] for states in dense.hidden_states[1:]])
        torch.testing.assert_close(row["teacher_layers"].float(), layers, rtol=2e-3, atol=1e-5)
        expected = dense.pruning.importance[-1, place, : len(row["input_ids"])]
        torch.testing.assert_close(row["teacher_importance"], expected, rtol=1e-4, atol=1e-7)
        over_layers = dense.pruning.importance[:, place, : len(row["input_ids"])].mean(dim=0)
        torch.testing.assert_close(row["teacher_mean_importance"], over_layers, rtol=1e-4, atol=1e-7)
        assert row["teacher_saliency"].tolist() == pytest.approx(salient[place].tolist(), rel=1e-3, abs=1e-6)
        assert float(row["teacher_importance"].sum()) == pytest.approx(1.0, abs=1e-5)


def test_rows_own_what_they_hold(rows):
    """Not views of whole batches, which would keep them all in memory."""
    teach(tiny_model(), rows, COLLATOR, ALL, batch_size=4)
    for row in rows:
        for name in ALL:
            assert row[name].untyped_storage().nbytes() == row[name].nbytes, name
            assert not row[name].requires_grad


def test_only_what_is_wanted(rows):
    teach(tiny_model(), rows, COLLATOR)
    assert all(ALL & set(row) == {"teacher_logits"} and row["teacher_logits"].shape == (4,) for row in rows)
