"""Making a loaded model prune: its encoder is replaced, hooks do the rest."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import nn

from ..pruning_config import PruningConfig
from .adapters import find_adapter
from .encoder import PrunedEncoder
from .freezing import freeze_for_inference, unfreeze
from .hooks import hook_base, hook_head


def prune_model(model: nn.Module, pruning: PruningConfig | Mapping | None) -> nn.Module:
    """Make a loaded Hugging Face model remove tokens; its class, parameters and checkpoint format stay.

    Args:
        model: a BertModel, or one of another type that is supported (the error for one that is not lists them), or either with any
            head, changed in place. A model that prunes already gets the new configuration.
        pruning: a PruningConfig, its to_dict(), or None (dense: packed, nothing pruned).

    Returns:
        the same model, with `model.set_pruning(pruning)` for later changes, `config.pruning` set,
        `model.freeze_for_inference()` and `model.unfreeze()` (see `freezing`), `model.set_gpu_mode(mode)` (see
        `PrunedEncoder`), and `model(..., output_pruning=True)` giving `out.pruning` (see PruningOutput). Heads that read only
        the first token (sequence classification, multiple choice, next sentence) skip restoring the padded states unless
        hidden states are asked for.

    Raises:
        TypeError: not a transformers model, or no pruning configuration.
        ValueError: an unsupported model type (the supported ones are listed), or a configuration that does not fit it.
    """
    adapter, base = find_adapter(model)
    encoder = adapter.encoder(base)
    if isinstance(encoder, PrunedEncoder):
        encoder.set_pruning(pruning)
    else:
        encoder = PrunedEncoder(base, adapter, pruning)
        setattr(base, adapter.encoder_name, encoder)
        encoder.hook_handles += hook_base(base)
        _give_methods(base, encoder)
    if "set_pruning" not in model.__dict__:  # a head, also one whose base model was pruned before
        encoder.hook_handles += hook_head(model, adapter.may_read_first_only(model))
        _give_methods(model, encoder)
    return model


def _give_methods(model: nn.Module, encoder: PrunedEncoder) -> None:
    model.set_pruning, model.set_gpu_mode = encoder.set_pruning, encoder.set_gpu_mode
    # Bound by partial, which unlike a bound method of another name can be pickled and copied with the model.
    model.freeze_for_inference = partial(freeze_for_inference, model)
    model.unfreeze = partial(unfreeze, model)
