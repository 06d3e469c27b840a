"""Making a loaded model prune: its encoder is replaced, and an entry put before its forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..pruning_config import PruningConfig
from .adapters import find_adapter
from .around import enter_by_base, enter_by_head
from .configuration import make_pruned
from .encoder import PrunedEncoder, as_pruning_config
from .freezing import freeze_for_inference, unfreeze
from .masked import protect_mask_token
from .wrappers import models_inside, pooled_readout


class _CheckpointsOwn:
    def __repr__(self) -> str:
        return "the checkpoint's own"


CHECKPOINTS_OWN = _CheckpointsOwn()


def prune_model(model: nn.Module, pruning: PruningConfig | Mapping | None | _CheckpointsOwn = CHECKPOINTS_OWN) -> nn.Module:
    """Make a loaded model remove tokens, in place; its class, its parameters and what is around them stay.

    Args:
        model: a BertModel, or one of another type that is supported (the error for one that is not lists them), or either with any
            head; or what holds such models: a SentenceTransformer, a CrossEncoder, a PEFT model, a module of your own. A model that
            prunes already gets the new configuration.
        pruning: a PruningConfig, its to_dict(), or None (dense: packed, nothing pruned). Left out: the checkpoint's own.

    Returns:
        the same model, with `model.set_pruning(pruning)` for later changes, `config.pruning` set,
        `model.freeze_for_inference()` and `model.unfreeze()` (see `freezing`), `model.set_gpu_mode(mode)` (see
        `PrunedEncoder`), and `model(..., output_pruning=True)` giving `out.pruning` (see PruningOutput). Heads that read only
        the first token (sequence classification, multiple choice, next sentence) skip restoring the padded states unless
        hidden states are asked for. Under sentence-transformers' mean pooling the survivors are averaged, under its [CLS] pooling
        the first token alone is computed to the end, unless the configuration's `readout` says otherwise. Saved where something is
        pruned, the model is loaded pruned, or not at all without this package; see `from_pretrained`.

    Raises:
        TypeError: no transformers model, nor anything that holds one, or no pruning configuration.
        ValueError: an unsupported model type (the supported ones are listed), a configuration that does not fit it, or none given for a
            model whose checkpoint has none.
    """
    if isinstance(model, PreTrainedModel):
        return _prune(model, pruning, None)
    inside, readout = models_inside(model), pooled_readout(model)
    for one in inside:
        _prune(one, pruning, readout)
    for name in ("set_pruning", "set_gpu_mode", "freeze_for_inference", "unfreeze"):
        setattr(model, name, partial(_all_of, model, inside, name))
    return model


def _prune(model: PreTrainedModel, pruning: Any, readout: str | None) -> PreTrainedModel:
    adapter, base = find_adapter(model)
    encoder = adapter.encoder(base)
    pruning = _chosen(model, pruning)
    if readout is not None and pruning.readout is None:
        pruning = replace(pruning, readout=readout)
    if isinstance(encoder, PrunedEncoder):
        encoder.set_pruning(pruning)
    else:
        encoder = PrunedEncoder(base, adapter, pruning)
        setattr(base, adapter.encoder_name, encoder)
        enter_by_base(base)
        _give_methods(base, encoder)
    if "set_pruning" not in model.__dict__:  # a head, also one whose base model was pruned before
        if getattr(model, model.base_model_prefix, None) is base:
            enter_by_head(model, adapter.may_read_first_only(model))
        _give_methods(model, encoder)
    for one in (base, model):
        make_pruned(one.config)
    protect_mask_token(model, encoder)
    return model


def _chosen(model: PreTrainedModel, pruning: Any) -> PruningConfig:
    if pruning is not CHECKPOINTS_OWN:
        return as_pruning_config(pruning)
    own = getattr(model.config, "pruning", None)
    if own is None:
        raise ValueError(
            "the model's checkpoint says nothing of pruning: give prune_model a PruningConfig, for example PruningConfig.ltp(thresholds), "
            "PruningConfig.top(keep_ratios), or PruningConfig.dense() to remove the padding only"
        )
    return as_pruning_config(own)


def _give_methods(model: nn.Module, encoder: PrunedEncoder) -> None:
    model.set_pruning, model.set_gpu_mode = encoder.set_pruning, encoder.set_gpu_mode
    # Bound by partial, which unlike a bound method of another name can be pickled and copied with the model.
    model.freeze_for_inference = partial(freeze_for_inference, model)
    model.unfreeze = partial(unfreeze, model)


def _all_of(model: nn.Module, inside: list[nn.Module], name: str, *args: Any, **kwargs: Any) -> nn.Module:
    """Call a method of all models that another holds."""
    for one in inside:
        getattr(one, name)(*args, **kwargs)
    return model
