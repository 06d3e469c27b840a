"""[MASK] in masked language models: the token that is asked about is never pruned."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from transformers import AutoTokenizer, PreTrainedModel

from .encoder import PrunedEncoder

# Without one of these transformers makes up a tokenizer, whose [MASK] is some token of the model's.
_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spm.model")
# How the classes are called that fill masks.
_SUFFIXES = ("ForMaskedLM", "ForPreTraining", "LMHeadModel")


def protect_mask_token(model: PreTrainedModel, encoder: PrunedEncoder) -> None:
    """Have the encoder of a masked language model never prune its [MASK].

    Its id stands in config.mask_token_id, or is asked of the tokenizer beside the checkpoint; without either the model says, once it
    prunes, that nobody knows it.
    """
    if not type(model).__name__.endswith(_SUFFIXES):
        return
    encoder.mask_token_id = _mask_token_id(model.config)
    encoder.fills_masks = True


def _mask_token_id(config) -> int | None:
    known = getattr(config, "mask_token_id", None)
    if known is None and _has_tokenizer(config.name_or_path):
        try:
            known = AutoTokenizer.from_pretrained(config.name_or_path, local_files_only=True).mask_token_id
        except Exception:  # no tokenizer there, or none that loads: loaders raise whatever their formats raise
            return None
        config.mask_token_id = known
    return known


def _has_tokenizer(name: str) -> bool:
    """Whether a folder, or a hub id's copy on this machine, has a tokenizer's files."""
    if not name or Path(name).is_dir():
        return bool(name) and any((Path(name) / file).is_file() for file in _FILES)
    try:
        return any(isinstance(try_to_load_from_cache(name, file), str) for file in _FILES)
    except ValueError:  # no hub id
        return False
