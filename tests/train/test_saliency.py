"""Saliency is the derivative that it says it is."""

import pytest
import torch
from tokprune_train.data.encoding import model_inputs
from tokprune_train.saliency import saliency

from .needles import COLLATOR, needle_rows, tiny_model

STEP = 0.02


class Lowered:
    """Takes `step` off the weight of one packed token after one layer."""

    masks, score_denominator = "attention", "kept"

    def __init__(self, layer, token, step):
        self.layer, self.token, self.step = layer, token, step

    def __call__(self, layer, importance, weights, cu_seqlens):
        return weights - self.step * (torch.arange(len(weights)) == self.token) if layer == self.layer else None


def decided_model():
    """One whose answers hang on its tokens, as those of a new model hardly do."""
    model = tiny_model().eval()
    with torch.no_grad():
        for name, parameter in model.base_model.encoder.named_parameters():
            if name.endswith("weight") and parameter.dim() == 2:
                parameter *= 8
    return model


@pytest.fixture
def inputs():
    return model_inputs(COLLATOR(needle_rows(3, seed=1)))


def margins(logits):
    if logits.shape[1] == 1:
        return logits[:, 0]
    chances = logits.softmax(dim=1).amax(dim=1)
    return (chances / (1 - chances)).log()


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_it_is_what_the_margin_loses(inputs, classes):
    """The mean over the layers but the last, against differences of the margin; a class's margin is its log-odds."""
    torch.manual_seed(0)
    model = decided_model()
    model.classifier = torch.nn.Linear(model.config.hidden_size, classes)
    told = saliency(model, inputs)
    lengths = inputs["attention_mask"].sum(dim=1)
    assert told.shape == (int(lengths.sum()),) and told.dtype == torch.float32 and not told.requires_grad
    for token in (0, 2, int(lengths[0]) + 1, len(told) - 1):
        changes = []
        for layer in range(2):
            with torch.no_grad():
                low, high = (margins(model(**inputs, soft_pruning=Lowered(layer, token, step))["logits"]) for step in (STEP, -STEP))
            changes.append(float((high - low).sum()) / (2 * STEP))
        assert float(told[token]) == pytest.approx(sum(map(abs, changes)) / 2, rel=0.03, abs=1e-5)
    assert told.max() > 1e-3, "else the tolerance hides everything"


def test_the_model_is_left_as_it_was(inputs):
    """What was frozen stays so, the rest still trains, and no gradient was left behind."""
    model = decided_model()
    model.base_model.embeddings.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    with torch.no_grad():
        told = saliency(model, inputs)
    assert [parameter.requires_grad for parameter in model.parameters()] == before and len(set(before)) == 2
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(saliency(model, inputs, bf16=True), told, rtol=0.1, atol=0.02 * float(told.max()))


def test_one_layer_has_no_tokens_to_miss(inputs):
    """Its decision is the last one."""
    told = saliency(tiny_model(layers=1).eval(), inputs)
    assert told.shape == (int(inputs["attention_mask"].sum()),) and not told.any()
