"""Making a loaded model prune: its encoder is replaced, hooks do the rest."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ..pruning_config import PruningConfig
from .adapters import find_adapter
from .encoder import PrunedEncoder
from .hooks import hook_base, hook_head


def prune_model(model: nn.Module, pruning: PruningConfig | Mapping | None) -> nn.Module:
    """Make a loaded Hugging Face model remove tokens; its class, parameters and checkpoint format stay.

    Args:
        model: a BertModel, or one with any head, changed in place. A model that prunes already gets the new configuration.
        pruning: a PruningConfig, its to_dict(), or None (dense: packed, nothing pruned).

    Returns:
        the same model, with `model.set_pruning(pruning)` for later changes, `config.pruning` set, and
        `model(..., output_pruning=True)` giving `out.pruning` (see PruningOutput). Heads that read only the pooled first
        token (sequence classification, multiple choice, next sentence) skip restoring the padded states unless hidden
        states are asked for.

    Raises:
        TypeError: not a transformers model, or no pruning configuration.
        ValueError: an unsupported model type (the supported ones are listed), or a configuration that does not fit it.
    """
    adapter, base = find_adapter(model)
    if isinstance(base.encoder, PrunedEncoder):
        base.encoder.set_pruning(pruning)
    else:
        base.encoder = PrunedEncoder(base, adapter, pruning)
        base.encoder.hook_handles += hook_base(base)
        base.set_pruning = base.encoder.set_pruning
    if "set_pruning" not in model.__dict__:  # a head, also one whose base model was pruned before
        base.encoder.hook_handles += hook_head(model, adapter.reads_pooled_only(model))
        model.set_pruning = base.encoder.set_pruning
    return model
