"""Freezing a model for inference: its encoder's weights stay in packed form only."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from .adapters import encoder_of, find_adapter

# What reaches the embeddings before the encoder can refuse it, and would leave the model half changed.
_GUARDED = ("train", "_apply", "_load_from_state_dict")


def freeze_for_inference(model: nn.Module) -> nn.Module:
    """Pack the encoder's weights and give up the originals, so that memory holds one copy and no call checks them.

    Outputs stay the same to the bit; `set_pruning`, `output_pruning` and hidden states work as before. What needs the
    originals is refused with a RuntimeError until `model.unfreeze()`, which brings them back to the bit: gradients (run
    the model under torch.no_grad() or torch.inference_mode()), train(), state_dict() and saving, load_state_dict(),
    another dtype or device, autocast, access to the layers. torch.compile leaves the encoder as it is. The model can be
    copied and pickled; copies are frozen and have weights of their own. While this function runs both forms exist.
    Neither it nor `unfreeze` may be called while another thread runs the model.

    Args:
        model: what prune_model gave, in eval mode, its encoder in float32 or bfloat16 on the CPU.

    Returns:
        the same model; nothing happens if it is frozen already.

    Raises:
        ValueError: a part of the model is in training mode, or a layer cannot be packed: it is wrapped by an adapter,
            has hooks, is of another dtype or device (the message names it), or the compiled kernels are missing.
    """
    if any(module.training for module in model.modules()):
        raise ValueError("only a model in eval mode can be frozen for inference: call model.eval() first")
    _, base = find_adapter(model)
    encoder_of(base).freeze()
    for one in {model, base}:
        for name in _GUARDED:
            setattr(one, name, partial(_ask_encoder, name, one))
    return model


def unfreeze(model: nn.Module) -> nn.Module:
    """Bring back the parameters that `freeze_for_inference` gave up: the same objects, values, and requires_grad.

    Returns the same model; nothing happens if it is not frozen.
    """
    _, base = find_adapter(model)
    encoder_of(base).unfreeze()
    for one in {model, base}:
        for name in _GUARDED:
            one.__dict__.pop(name, None)
    return model


def _ask_encoder(name: str, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The model's method of this name, once the frozen layers have not refused it."""
    encoder = encoder_of(find_adapter(model)[1])
    if encoder.is_frozen:  # or it was unfrozen through another model around it
        getattr(encoder.layer, name)(*args, **kwargs)
    return getattr(type(model), name)(model, *args, **kwargs)
