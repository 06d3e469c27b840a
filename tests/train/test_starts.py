"""Starting shapes: what meets a constraint, and which of them is taken."""

from dataclasses import replace

import pytest
import tokprune_kernels as tk
import torch
from tokprune_train.calibration.fit import fit_to_target, kept_lengths
from tokprune_train.calibration.starts import nearest_start, ratio_shapes, threshold_shapes
from tokprune_train.objectives.cost import FlopsCost
from tokprune_train.objectives.gates import FIRST_ONLY
from torch.nn import functional

from .needles import COLLATOR, needle_rows, tiny_model


def test_shapes_of_thresholds():
    """They rise to a typical score, and after the last layer nothing but the first token stays."""
    shapes = list(threshold_shapes(3, 0.04, score_denominator=128))
    assert all(shape.score_denominator == 128 and shape.thresholds[-1] > 1 for shape in shapes)
    assert [shape.thresholds[:2] for shape in shapes if shape.thresholds[0] == pytest.approx(0.04 / 3)] == [pytest.approx((0.04 / 3, 0.08 / 3))]
    assert all(shape.thresholds[0] < shape.thresholds[1] < 0.04 for shape in shapes)
    (square,) = threshold_shapes(3, 0.09, [2])
    assert square.thresholds[:2] == pytest.approx((0.01, 0.04))


@pytest.mark.parametrize("position", ["before_layer", "after_attention"])
def test_shapes_of_ratios(position):
    """Up to two first layers whole; the others keep the same, ever more, or ever less."""
    seen = []
    for shape in ratio_shapes(5, position):
        ratios = shape.keep_ratios[:-1] if position == "after_attention" else shape.keep_ratios[1:]
        whole, pruned = ratios.count(1.0), [ratio for ratio in ratios if ratio < 1]
        assert len(ratios) == 4 and ratios[:whole] == (1.0,) * whole and shape.position == position
        seen.append((whole, (pruned[-1] > pruned[0]) - (pruned[-1] < pruned[0])))
        assert sorted(pruned, reverse=pruned[0] > pruned[-1]) == pruned
    assert seen == [(whole, lean) for whole in range(3) for lean in (1, 0, -1)]


def test_a_start_that_saves_too_little_is_none():
    """Whole layers leave the answers nearest, and cannot meet the constraint; where nothing can, the one that saves most is taken."""
    model, rows = tiny_model(), needle_rows(24, seed=1)
    cost = FlopsCost(model.config, "after_attention")
    little, much = (tk.PruningConfig.top(ratios, position="after_attention") for ratios in ([1.0, 1.0, 1e-9], [0.5, 0.5, 1e-9]))
    chosen = nearest_start(model, [little, much], cost, 0.5, rows, COLLATOR)
    assert chosen == fit_to_target(model, much, cost, 0.5, rows, COLLATOR)
    assert nearest_start(model, [little, much], cost, 0.99, rows, COLLATOR).keep_ratios[0] < 1.0


@pytest.mark.parametrize("count_first", [True, False])
def test_a_layer_that_keeps_the_first_token_alone_goes_on_doing_so(count_first):
    """However mild a fit makes the others."""
    model, rows = tiny_model(), needle_rows(24, seed=1)
    shape = tk.PruningConfig.top([0.3, 0.3, FIRST_ONLY], position="after_attention", count_first=count_first)
    fitted = fit_to_target(model, shape, FlopsCost(model.config, "after_attention"), 0.3, rows, COLLATOR)
    assert fitted.keep_ratios[0] > 0.4 and fitted.keep_ratios[2] == FIRST_ONLY
    assert int(kept_lengths(model, fitted, rows, COLLATOR)[-1].max()) == 1


@pytest.mark.parametrize("position", ["before_layer", "after_attention"])
@pytest.mark.parametrize("count_first", [True, False], ids=["first_counted", "past_the_first"])
@pytest.mark.parametrize("ratios", [(1.0, 0.3, 0.7), (1.0, 1.0, 1e-9), (1.0, 0.5, 0.5)])
def test_what_ratios_leave_is_known_without_the_model(position, ratios, count_first):
    """As many as the model really keeps, of texts of all lengths; protected tokens, which may be more, are counted by the model."""
    model, rows = tiny_model(), [{"input_ids": [1] * n, "attention_mask": [1] * n, "labels": 0} for n in (1, 2, 3, 10, 17, 24)]
    pruning = tk.PruningConfig.top(ratios, position=position, count_first=count_first)
    before = dict(model.config.pruning)
    known = kept_lengths(model, pruning, rows, COLLATOR)
    assert model.config.pruning == before and known.dtype == torch.float64
    model.set_pruning(pruning)
    batch = COLLATOR(rows)
    with torch.no_grad():
        output = model.eval()(batch["input_ids"], attention_mask=batch["attention_mask"], output_pruning=True)
    assert torch.equal(known, output.pruning.kept_lengths.double()) and known.sum() < known[0].sum() * len(known)
    assert kept_lengths(None, pruning, rows, COLLATOR).equal(known), "nothing is run"
    guarded = kept_lengths(model, tk.PruningConfig.top(ratios, position=position, protected_token_ids=[1]), rows, COLLATOR)
    assert guarded.sum() == known[0].sum() * len(known)


def test_the_nearest_is_taken():
    """Of all shapes, fitted, the one with the least divergence from the dense answers; the model is left as it was."""
    model, rows = tiny_model(), needle_rows(24, seed=1)
    cost, shapes = FlopsCost(model.config, "after_attention"), list(threshold_shapes(3, 0.05))
    model.set_pruning(tk.PruningConfig.top([1.0, 0.5, 0.5]))
    chosen = nearest_start(model, shapes, cost, 0.4, rows, COLLATOR)
    assert model.config.pruning == tk.PruningConfig.top([1.0, 0.5, 0.5]).to_dict()
    batch = COLLATOR(rows)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    logits = []
    fitted = [fit_to_target(model, shape, cost, 0.4, rows, COLLATOR) for shape in shapes]
    for pruning in (tk.PruningConfig.dense(), *fitted):
        model.set_pruning(pruning)
        with torch.no_grad():
            logits.append(model.eval()(**inputs).logits.log_softmax(dim=1))
    apart = [float(functional.kl_div(one, logits[0], reduction="batchmean", log_target=True)) for one in logits[1:]]
    assert len(set(apart)) > 1, "the shapes must differ for the choice to mean something"
    assert chosen == fitted[apart.index(min(apart))]


@pytest.mark.parametrize("denominator", ["kept", "sqrt_kept", "initial", 1])
def test_only_the_first_token_is_left_in_the_end(denominator):
    """Whatever scores are divided by, and where a fit has made the thresholds a quarter: one token may receive all attention."""
    rows, model = needle_rows(8, seed=4, shortest=30), tiny_model(seed=1)
    with torch.no_grad():
        for layer in model.base_model.encoder.layer:
            layer.attention.self.key.weight.mul_(60)
            layer.attention.self.query.weight.mul_(60)
    for shape in threshold_shapes(3, 0.04, score_denominator=denominator):
        fitted = replace(shape, thresholds=tuple(theta / 4 for theta in shape.thresholds))
        assert int(kept_lengths(model, fitted, rows, COLLATOR)[-1].max()) == 1
