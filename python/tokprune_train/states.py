"""What the first tokens become: after every layer, and what a head reads its answer from, noted while a model runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def pooled_states(model: nn.Module) -> Iterator[list[Tensor]]:
    """Within it, the list holds what the model's pooler gave at the last forward, (B, H), or what does its part in the heads of the types
    without one (RoBERTa, ELECTRA: `classifier.dense`; DistilBERT: `pre_classifier`); empty before the first.

    Raises ValueError for a model that has none of them.
    """
    classifier = getattr(model, "classifier", None)
    poolers = (getattr(model.base_model, "pooler", None), getattr(classifier, "dense", None), getattr(model, "pre_classifier", None))
    pooler = next((one for one in poolers if one is not None), None)
    if pooler is None:
        raise ValueError(f"state distillation needs a model whose head reads a pooled state; {type(model).__name__} has no pooler")
    noted: list[Tensor] = []

    def note(module, args, output):
        noted[:] = [output]

    handle = pooler.register_forward_hook(note)
    try:
        yield noted
    finally:
        handle.remove()


def layer_states(output: dict) -> Tensor:
    """(B, num_layers, H): each text's first token after every layer, of a model's output with hidden_states."""
    return torch.stack([states[:, 0] for states in output["hidden_states"][1:]], dim=1)
