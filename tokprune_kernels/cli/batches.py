"""Padded batches (input_ids, attention_mask and, of pairs, token_type_ids: (B, L) int64) from texts, or from bare lengths."""

import torch

from ..models.adapters import longest_text
from .errors import CliError, UsageError
from .texts import Texts

_MOST_TOKENS = 2**31 - 1  # places in a packed batch are int32


def has_token_types(config) -> bool:
    """Whether a model of this configuration is told which of two texts a token belongs to."""
    return getattr(config, "type_vocab_size", 0) > 1


def model_inputs(encoded, texts: Texts, config) -> dict:
    """Return what a model takes of what the tokenizer made of `texts`: token_type_ids of pairs only, of single texts they are 0."""
    names = ["input_ids", "attention_mask"]
    if texts.second is not None and has_token_types(config) and "token_type_ids" in encoded:
        names.append("token_type_ids")
    return {name: encoded[name] for name in names}


def encode_texts(tokenizer, texts: Texts, size: int, max_length: int, config) -> list[dict]:
    """Tokenise texts, in their own order, into batches of `size` texts or pairs, each right-padded to its longest.

    Those of more than `max_length` tokens are cut, of pairs the longer text. config: the model's.
    """
    batches = []
    for start in range(0, len(texts), size):
        chosen = texts[start : start + size]
        encoded = tokenizer(
            chosen.first,
            chosen.second,
            padding=True,
            truncation=True,
            max_length=max_length,
            padding_side="right",
            return_tensors="pt",
        )
        batches.append(model_inputs(encoded, chosen, config))
    return batches


def random_batch(lengths: list[int], size: int, config, max_length: int) -> dict:
    """Return one right-padded batch of `size` texts of random tokens (seed 0).

    The lengths are `lengths`, repeated in turn. Raises UsageError for a length that the model cannot take.
    """
    if max(lengths) > max_length:
        raise UsageError(f"--lengths: {max(lengths)} is more than {max_length}, the longest text allowed here")
    if size * max(lengths) > _MOST_TOKENS:
        raise UsageError(f"--batch: {size} texts of up to {max(lengths)} tokens are more than the {_MOST_TOKENS} tokens that a batch can have")
    wanted = torch.tensor([lengths[row % len(lengths)] for row in range(size)])
    attention_mask = (torch.arange(int(wanted.max())) < wanted[:, None]).long()
    ids = torch.randint(1, config.vocab_size, attention_mask.shape, generator=torch.Generator().manual_seed(0))
    # RoBERTa's own embeddings number the tokens that are not the padding's: it must be where padding is, and nowhere else.
    padding = config.pad_token_id or 0
    ids = torch.where(ids == padding, 0, ids)
    return {"input_ids": torch.where(attention_mask != 0, ids, padding), "attention_mask": attention_mask}


def longest_allowed(config, tokenizer=None, wanted: int | None = None) -> int:
    """Return the number of tokens at which texts are cut: `wanted`, or all that model and tokenizer can take.

    Raises CliError where `wanted` is more than the model has positions for, or where it or the model leaves no room for a text.
    """
    most = longest_text(config)
    least = 1 + (0 if tokenizer is None else tokenizer.num_special_tokens_to_add())
    known = min(most, getattr(tokenizer, "model_max_length", most))
    if known < least:
        raise CliError(f"no text fits: the model has positions for {most} tokens, its tokenizer makes {known} at most, and {least} are needed")
    if wanted is not None and wanted < least:
        raise CliError(f"--max-length {wanted} leaves no room for a text beside the tokenizer's own tokens: give {least} or more")
    if wanted is not None and wanted > most:
        raise CliError(f"--max-length {wanted} is more than the {most} positions of the model")
    return wanted or known


def describe_lengths(batches: list[dict]) -> dict:
    """Return numbers of texts, tokens and padded places of batches, for the head of a report."""
    lengths = torch.cat([batch["attention_mask"].sum(dim=1) for batch in batches])
    places = sum(batch["input_ids"].numel() for batch in batches)
    return {
        "texts": len(lengths),
        "batches": len(batches),
        "batch_size": len(batches[0]["input_ids"]),
        "tokens": int(lengths.sum()),
        "shortest": int(lengths.min()),
        "longest": int(lengths.max()),
        "padded_places": places,
        "padding_share": 1 - int(lengths.sum()) / places,
    }
