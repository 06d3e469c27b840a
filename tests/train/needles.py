"""A synthetic task whose answer is known: a few needle tokens among noise decide the label, so noise alone should go."""

from __future__ import annotations

import torch
from transformers import BertConfig, BertForSequenceClassification

import tokprune_kernels as tk
from tokprune_train.data.encoding import Collator

CLS, FIRST_NEEDLE, FIRST_NOISE, VOCABULARY = 1, 2, 12, 60
CLASSES, NEEDLES = 2, 2
COLLATOR = Collator(pad_token_id=0)


def needle_rows(count: int, seed: int, shortest: int = 12, longest: int = 32) -> list[dict]:
    """Texts of random length: [CLS], noise, and NEEDLES needles at random places, all of one class: the label.

    Needles of class c are the ids FIRST_NEEDLE + c, FIRST_NEEDLE + c + CLASSES, ...; what is above FIRST_NOISE is noise.
    """
    generator = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    rows = []
    for _ in range(count):
        length, label = number(shortest, longest + 1), number(0, CLASSES)
        ids = torch.randint(FIRST_NOISE, VOCABULARY, (length,), generator=generator)
        ids[0] = CLS
        places = torch.randperm(length - 1, generator=generator)[:NEEDLES] + 1
        kinds = torch.randint(0, (FIRST_NOISE - FIRST_NEEDLE) // CLASSES, (NEEDLES,), generator=generator)
        ids[places] = FIRST_NEEDLE + label + CLASSES * kinds
        rows.append({"input_ids": ids.tolist(), "attention_mask": [1] * length, "labels": label})
    return rows


def tiny_model(seed: int = 0, layers: int = 3) -> torch.nn.Module:
    """A small BERT classifier, packed."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=CLASSES,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return tk.prune_model(BertForSequenceClassification(config), None)


def kept_shares(model: torch.nn.Module, rows: list[dict]) -> tuple[float, float]:
    """(share of the needles, share of the noise) that the last layer's attention still sees, tokens really removed."""
    batch = COLLATOR(rows)
    model.eval()
    with torch.no_grad():
        pruning = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_pruning=True)["pruning"]
    alive, ids, live = pruning.kept_mask[-2], batch["input_ids"], batch["attention_mask"] != 0
    needles = live & (ids >= FIRST_NEEDLE) & (ids < FIRST_NOISE)
    noise = live & (ids >= FIRST_NOISE)
    return float((alive & needles).sum() / needles.sum()), float((alive & noise).sum() / noise.sum())
