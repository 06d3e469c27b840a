"""What a checkpoint's weights must be before anything is made of them: all there, all finite, enough for the tokenizer's tokens."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import CliError


def refuse_missing(name: str, model, missing: Iterable[str], has_head: bool) -> None:
    """Raise CliError where a checkpoint lacks weights, in whose place transformers puts random ones.

    missing: their names, as `from_pretrained(output_loading_info=True)` gives them.   has_head: whether the checkpoint is of a model with a
    head. One without may be given a new one, and a new pooler, which is a part of the head: checkpoints of language models have none.
    """
    base = f"{model.base_model_prefix}." if hasattr(model, model.base_model_prefix) else ""
    inside = [key for key in missing if key.startswith(base) and not key.removeprefix(base).startswith("pooler.")]
    lacking = sorted(missing) if has_head else sorted(inside)
    if lacking:
        some = ", ".join(lacking[:4]) + (f" and {len(lacking) - 4} more" if len(lacking) > 4 else "")
        raise CliError(
            f"{name!r} lacks {len(lacking)} of the weights of a {type(model).__name__}: {some}; the checkpoint is not whole, or its "
            "config.json is another model's: save or download it again"
        )


def refuse_not_finite(name: str, model) -> None:
    """Raise CliError where a weight is NaN or infinite, with which nothing that the model says means anything."""
    broken = [key for key, tensor in model.state_dict().items() if tensor.is_floating_point() and not bool(tensor.isfinite().all())]
    if broken:
        raise CliError(
            f"{name!r} has weights that are not finite (NaN or infinity) in {len(broken)} of its tensors, {broken[0]} the first: what it was "
            "trained or converted with has failed; take a checkpoint from before"
        )


def refuse_tokens(name: str, tokenizer, vocab_size: int | None) -> None:
    """Raise CliError where the tokenizer has a token that the model has no embedding for."""
    around = tokenizer("a", "a")["input_ids"]  # what stands around texts has ids of its own, which no vocabulary need have
    highest = max([*tokenizer.get_vocab().values(), *around], default=-1)
    if vocab_size is not None and highest >= vocab_size:
        raise CliError(
            f"the tokenizer of {name!r} numbers its tokens up to {highest}, and the model has embeddings for {vocab_size} (vocab_size in its "
            "config.json): the two are not of one checkpoint, or the embeddings were not resized for tokens that were added"
        )
