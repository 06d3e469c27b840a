"""Checkpoints of the official code: what becomes of their thresholds and masks, and that the imported model answers as theirs does."""

import json

import pytest
import tokprune_kernels as tk
import torch
from tokprune_train.importers.ltp import import_ltp, thresholds
from tokprune_train.importers.top import import_top, keep_ratios
from tokprune_train.objectives.gates import FIRST_ONLY

from .official import BINS, LAYERS, WIDTH, ltp_forward, texts, top_forward, write_ltp, write_top

FINAL, LEARNED = 0.04, (0.0, -0.02, 0.006, 0.004)


def prefix(on):
    return [1.0] * on + [0.0] * (BINS - on)


def run(model, ids, mask):
    with torch.no_grad():
        return model(ids, attention_mask=mask, output_pruning=True)


def test_thresholds_by_hand():
    """The line starts at 0 in layer 0; a sum of exactly 0 prunes nothing, one below 1e-5 prunes with that."""
    found = thresholds(0.02, {layer: torch.tensor(value) for layer, value in enumerate((0.0, -0.02, 0.008, 0.012))}, 4)
    assert found == pytest.approx([0.0, 1e-5, 0.018, 0.027], rel=1e-6)
    assert found[0] == 0.0 and found[1] == 1e-5
    assert thresholds(0.01, {0: torch.tensor(-0.001), 1: torch.tensor([0.002])}, 2) == pytest.approx([1e-5, 0.007])
    with pytest.raises(ValueError, match=r"each of its 3 layers; it has them for \[0, 2\], not for \[1\]"):
        thresholds(0.01, {0: torch.tensor(0.0), 2: torch.tensor(0.0)}, 3)
    with pytest.raises(ValueError, match=r"layer 0 must be one number, got a tensor of shape \(2,\)"):
        thresholds(0.01, {0: torch.zeros(2)}, 1)


def test_ltp_answers_as_the_official_code(tmp_path):
    folder = write_ltp(tmp_path / "ltp", FINAL, LEARNED)
    imported = import_ltp(folder, WIDTH)
    pruning = tk.PruningConfig.from_dict(imported.model.config.pruning)
    assert pruning.thresholds == pytest.approx((0.0, 1e-5, 0.026, 0.034), rel=1e-6)
    assert (pruning.score_denominator, pruning.position, pruning.protect_first) == (WIDTH, "after_attention", True)
    assert type(imported.model).__name__ == "RobertaForSequenceClassification"
    assert any(name.endswith("query.weight_integer") for name in imported.left_out)
    ids, mask = texts()
    logits, alive, least = ltp_forward(folder, ids, mask, FINAL, LEARNED)
    assert least > 0, "the official code must keep [CLS] here, or the two differ"
    out = run(imported.model, ids, mask)
    torch.testing.assert_close(out.logits, logits, rtol=1e-4, atol=1e-4)
    assert torch.equal(out.pruning.kept_mask[-1], alive)
    assert 0.2 < float(alive.sum() / mask.sum()) < 0.9, "the test must prune"
    # The same in a batch padded to less: the denominator is the training's, not the batch's.
    short = run(imported.model, ids[1:2, :9], mask[1:2, :9])
    torch.testing.assert_close(short.logits, logits[1:2], rtol=1e-4, atol=1e-4)


def test_the_padded_length_may_be_in_the_configuration(tmp_path):
    folder = write_ltp(tmp_path / "ltp", max_seq_length=16)
    assert import_ltp(folder).model.config.pruning["score_denominator"] == 16
    assert import_ltp(folder, 20).model.config.pruning["score_denominator"] == 20


LTP_REFUSED = {
    "no padded length": ({}, None, "give --max-length"),
    "too long": ({}, 39, "1 to 38, got 39"),
    "another model": ({"model_type": "ibert"}, WIDTH, "model_type in config.json must be 'ltp'"),
    "a baseline": ({"prune_mode": "topk"}, WIDTH, "prune_mode.*'absolute_threshold'.*got 'topk'.*tokprune train topk"),
    "quantised": ({"quant_mode": True}, WIDTH, "quant_mode"),
    "other scores": ({"scoring_mode": "mean_norm"}, WIDTH, "scoring_mode.*'mean_norm'"),
    "no line": ({"final_token_threshold": None}, WIDTH, "final_token_threshold"),
    "another head": ({"architectures": ["LTPForMaskedLM"]}, WIDTH, "architectures.*LTPForSequenceClassification.*LTPForMaskedLM"),
}


@pytest.mark.parametrize("case", LTP_REFUSED)
def test_what_is_no_ltp_checkpoint(tmp_path, case):
    changes, length, message = LTP_REFUSED[case]
    with pytest.raises(ValueError, match=message):
        import_ltp(write_ltp(tmp_path / "ltp", **changes), length)


def test_tensors_that_are_missing_or_unknown_are_listed(tmp_path):
    folder = write_ltp(tmp_path / "ltp")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    lost = state.pop("ibert.encoder.layer.1.output.dense.weight")
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"lacks 1 tensor\(s\).*needs: roberta.encoder.layer.1.output.dense.weight"):
        import_ltp(folder, WIDTH)
    torch.save(state | {"ibert.encoder.layer.1.output.dense.weight": lost, "ibert.gate": lost}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"has 1 tensor\(s\).*does not know: roberta.gate"):
        import_ltp(folder, WIDTH)
    torch.save(state | {"ibert.encoder.layer.1.output.dense.weight": lost[:, 1:]}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"output.dense.weight \(32, 47\), not \(32, 48\)"):
        import_ltp(folder, WIDTH)


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForQuestionAnswering"])
def test_top_answers_as_the_official_code(tmp_path, head):
    """1 + ceil(share * (n - 1)) tokens stay; the pruned ones are answered for by the states they left with."""
    folder = write_top(tmp_path / "top", [prefix(10), prefix(7), prefix(4)], [1, 1, 1], head)
    model = import_top(folder, [1, 2, 3]).model
    pruning = tk.PruningConfig.from_dict(model.config.pruning)
    assert pruning.keep_ratios == (1.0, 1.0, 0.7, 0.4) and not pruning.count_first and pruning.position == "before_layer"
    assert type(model).__name__ == f"Bert{head}"
    ids, mask = texts()
    states, alive, logits = top_forward(folder, ids, mask, [1, 2, 3])
    out = run(model, ids, mask)
    assert torch.equal(out.pruning.kept_mask[-1], alive)
    assert out.pruning.kept_lengths[:, 0].tolist() == [24, 24, 18, 8, 8]  # 1 + ceil(0.7 * 23), 1 + ceil(0.4 * 17)
    live = mask == 1
    if head == "ForQuestionAnswering":
        ours = torch.stack([out.start_logits, out.end_logits], dim=-1)
        torch.testing.assert_close(ours[live], logits[live], rtol=1e-4, atol=1e-4)
    else:
        torch.testing.assert_close(out.logits, logits, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        inner = model.base_model(ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(inner[live], states[live], rtol=1e-4, atol=1e-4)


def test_top_where_a_pruner_is_off_and_a_layer_keeps_none(tmp_path):
    folder = write_top(tmp_path / "top", [prefix(2), prefix(0)], [0, 1])
    model = import_top(folder, [1, 3]).model
    assert model.config.pruning["keep_ratios"] == [1.0, 1.0, 1.0, FIRST_ONLY]
    ids, mask = texts()
    out = run(model, ids, mask)
    assert out.pruning.kept_lengths[-1].tolist() == [1] * 5 and torch.equal(out.pruning.kept_lengths[2], mask.sum(dim=1))
    torch.testing.assert_close(out.logits, top_forward(folder, ids, mask, [1, 3])[2], rtol=1e-4, atol=1e-4)


def test_masks_that_are_no_prefix(tmp_path):
    """Refused, or, where that is asked for, as many tokens as in the official code."""
    scattered = [1, 1, 0, 1, 1, 0, 0, 1, 0, 0]
    folder = write_top(tmp_path / "top", [prefix(10), scattered])
    with pytest.raises(ValueError, match=r"layer\(s\) 3 are not the first ones.*--as-shares"):
        import_top(folder, [2, 3])
    model = import_top(folder, [2, 3], as_shares=True).model
    assert model.config.pruning["keep_ratios"] == [1.0, 1.0, 1.0, 0.5]
    ids, mask = texts((21, 11))
    theirs = top_forward(folder, ids, mask, [2, 3])[1]
    assert torch.equal(run(model, ids, mask).pruning.kept_lengths[-1], theirs.sum(dim=1))
    # A mask of a layer whose pruner is off says nothing.
    assert keep_ratios(torch.tensor([scattered]) > 0, torch.tensor([False]), [2], LAYERS) == [1.0] * LAYERS


@pytest.mark.parametrize("layers", [[], [1], [1, 2, 3], [2, 1], [0, 1], [3, 4]])
def test_layers_must_fit_the_masks(tmp_path, layers):
    folder = write_top(tmp_path / "top", [prefix(5), prefix(5)])
    with pytest.raises(ValueError, match="where the 2 rows of token_z prune.*--layers 2,3"):
        import_top(folder, layers)


def test_objects_in_zs_are_not_unpickled(tmp_path):
    class Loud:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    folder = write_top(tmp_path / "top", [prefix(5)])
    torch.save({"token_z": Loud(), "pruner_z": torch.ones(1)}, folder / "zs.pt")
    with pytest.raises(ValueError, match="must hold tensors only"):
        import_top(folder, [1])


TOP_REFUSED = {
    "another mask": ({"head_z": torch.ones(2)}, "must hold token_z and pruner_z.*head_z"),
    "shapes": ({"pruner_z": torch.ones(3)}, r"got \(1, 10\) and \(3,\)"),
    "no tensor": ({"pruner_z": 1.0}, "must be tensors"),
}


@pytest.mark.parametrize("case", TOP_REFUSED)
def test_what_zs_must_hold(tmp_path, case):
    more, message = TOP_REFUSED[case]
    with pytest.raises(ValueError, match=message):
        import_top(write_top(tmp_path / "top", [prefix(5)], **more), [1])


def test_files_that_are_missing(tmp_path):
    folder = write_top(tmp_path / "top", [prefix(5)])
    (folder / "zs.pt").unlink()
    with pytest.raises(ValueError, match="has no zs.pt"):
        import_top(folder, [1])
    with pytest.raises(ValueError, match="config.json"):
        import_ltp(tmp_path, WIDTH)
    folder = write_ltp(tmp_path / "ltp")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match="has none of model.safetensors, pytorch_model.bin"):
        import_ltp(folder, WIDTH)
    (folder / "config.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match="must hold an object"):
        import_ltp(folder, WIDTH)
