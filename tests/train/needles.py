"""A synthetic task whose answer is known: one needle among noise decides the label, so the noise alone should go."""

from __future__ import annotations

import torch
from transformers import BertConfig, BertForSequenceClassification

import tokprune_kernels as tk
from tokprune_train.data.encoding import Collator, on_device

CLS, FIRST_NEEDLE, FIRST_NOISE, VOCABULARY = 1, 2, 11, 60
KINDS = 3
COLLATOR = Collator(pad_token_id=0)


def needle_rows(count: int, seed: int, shortest: int = 12, longest: int = 32) -> list[dict]:
    """Texts of random length: [CLS] and noise, in three of four texts with a needle at a random place: its kind is the label.

    Needles of kind k are the ids FIRST_NEEDLE + k, FIRST_NEEDLE + k + KINDS, ...; from FIRST_NOISE on all is noise. No needle
    may be missed: two of a kind in a text would make one of them moot, and without the texts that have none (label KINDS)
    the absence of all other kinds would tell the last one.
    """
    generator = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    rows = []
    for _ in range(count):
        length, label = number(shortest, longest + 1), number(0, KINDS + 1)
        ids = torch.randint(FIRST_NOISE, VOCABULARY, (length,), generator=generator)
        ids[0] = CLS
        place, variant = number(1, length), number(0, (FIRST_NOISE - FIRST_NEEDLE) // KINDS)
        if label < KINDS:
            ids[place] = FIRST_NEEDLE + label + KINDS * variant
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
        num_labels=KINDS + 1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return tk.prune_model(BertForSequenceClassification(config), None)


def kept_shares(model: torch.nn.Module, rows: list[dict]) -> tuple[float, float]:
    """(share of the needles, share of the noise) that the last layer's attention still sees, tokens really removed."""
    batch = on_device(COLLATOR(rows), model.device)
    model.eval()
    with torch.no_grad():
        pruning = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_pruning=True)["pruning"]
    alive, ids, live = pruning.kept_mask[-2], batch["input_ids"], batch["attention_mask"] != 0
    needles = live & (ids >= FIRST_NEEDLE) & (ids < FIRST_NOISE)
    noise = live & (ids >= FIRST_NOISE)
    return float((alive & needles).sum() / needles.sum()), float((alive & noise).sum() / noise.sum())
