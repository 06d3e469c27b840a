"""PEFT: adapters in pruned models, and pruning of models with adapters."""

import pytest
import tokprune_kernels as tk
import torch
import transformers

from ..models.helpers import random_batch, random_bert, run, text_error

peft = pytest.importorskip("peft", reason="needs peft")

PRUNING = tk.PruningConfig.top([1.0, 0.5, 0.5])
IDS, MASK = random_batch((16, 4, 7))


def adapted(model, **options):
    """With a LoRA whose weights are not the zeros that it begins with, on the default target modules of the type."""
    wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=4, **options))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return wrapped.eval()


def classifier():
    return random_bert(transformers.BertForSequenceClassification)


@torch.no_grad()
def test_either_order_gives_the_same():
    """And what a LoRA adds is in it; PEFT finds its target modules by the model type."""
    first = adapted(tk.prune_model(classifier(), PRUNING))
    second = tk.prune_model(adapted(classifier()), PRUNING)
    assert type(second).__name__ == "PeftModelForSequenceClassification"
    one, two = (model(input_ids=IDS, attention_mask=MASK, output_pruning=True) for model in (first, second))
    assert torch.equal(one.logits, two.logits)
    assert (two.pruning.kept_lengths[-1] < MASK.sum(1)).all()
    plain = run(tk.prune_model(classifier(), PRUNING), IDS, MASK)
    assert text_error(one.logits, plain.logits) > 1e-3
    merged = second.merge_and_unload()
    assert text_error(run(merged, IDS, MASK).logits, one.logits) <= 1e-4


def test_methods_of_the_wrapper():
    model = tk.prune_model(adapted(classifier()), PRUNING)
    model.set_pruning(None)
    with torch.no_grad():
        out = model(input_ids=IDS, attention_mask=MASK, output_pruning=True)
    assert torch.equal(out.pruning.kept_lengths[-1], MASK.sum(1))
    with pytest.raises(ValueError, match="cannot be frozen.*merge_and_unload"):
        model.freeze_for_inference()


@pytest.mark.filterwarnings("ignore:tokprune_kernels. the attention dropout")
def test_training_an_adapter(tmp_path):
    model = tk.prune_model(adapted(classifier()), PRUNING)
    model.train()
    model(input_ids=IDS, attention_mask=MASK, labels=torch.tensor([0, 1, 0])).loss.backward()
    gradients = [p.grad for name, p in model.named_parameters() if "lora_" in name]
    assert all(g is not None and g.isfinite().all() for g in gradients) and any(g.any() for g in gradients)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_config.json").is_file()


@torch.no_grad()
def test_an_adapter_inside_a_loaded_checkpoint(tmp_path):
    """As transformers' `add_adapter` puts it there, which sentence-transformers calls."""
    tk.prune_model(classifier(), PRUNING).save_pretrained(tmp_path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    before = model(IDS, attention_mask=MASK).logits
    peft.inject_adapter_in_model(peft.LoraConfig(r=4), model)
    assert torch.equal(model(IDS, attention_mask=MASK).logits, before), "a new LoRA adds nothing"
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.add_(0.3)
    assert not torch.equal(model(IDS, attention_mask=MASK).logits, before)
