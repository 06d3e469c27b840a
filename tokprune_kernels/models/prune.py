"""Making a loaded model prune: its encoder is replaced, hooks do the rest."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from torch import nn

from ..pruning_config import PruningConfig
from .adapters import find_adapter
from .encoder import PrunedEncoder
from .hooks import install_hooks


def prune_model(model: nn.Module, pruning: PruningConfig | Mapping | None) -> nn.Module:
    """Make a loaded Hugging Face model remove tokens; its class, parameters and checkpoint format stay.

    Args:
        model: a BertModel, or one with any head, changed in place. A model that prunes already gets the new configuration.
        pruning: a PruningConfig, its to_dict(), or None (dense: packed, nothing pruned).

    Returns:
        the same model, with `model.set_pruning(pruning)` for later changes, `config.pruning` set, and
        `model(..., output_pruning=True)` giving `out.pruning` (see PruningOutput). Pooled-only heads (sequence
        classification, multiple choice, next sentence) skip restoring the padded states unless hidden states are asked for.

    Raises:
        TypeError: not a transformers model, or no pruning configuration.
        ValueError: an unsupported model type (the supported ones are listed), or a configuration that does not fit it.
    """
    adapter, base = find_adapter(model)
    if isinstance(base.encoder, PrunedEncoder):
        base.encoder.set_pruning(pruning)
        return model
    encoder = PrunedEncoder(base.encoder.layer, base.config, adapter.layer_modules, pruning)
    base.encoder = encoder.train(base.training)
    # Kept with the encoder: unpickled handles keep the ids of the hooks from being given to others.
    encoder.argument_names = tuple(inspect.signature(base.forward).parameters)
    encoder.hook_handles = install_hooks(model, base, adapter.reads_first_token_only(model))
    model.set_pruning = base.set_pruning = encoder.set_pruning
    return model
