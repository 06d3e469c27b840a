"""A forward that torch.export or torch.compile traces: between padded tensors, so that no size in it hangs on the data.

Embeddings run on the padded ids, with positions counted from the mask; the encoder is one op from padded states to padded states.
Exported programs get `padded_encoder`, which holds the weights' values. Compiled ones get `live_encoder`, which runs the encoder as it
is at each call: its weights, its pruning, its fast path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.calling import is_hooked
from ..layers.kernels import COMPILED_FLOATS, OPS
from ..layers.packed_layer import pack_layer, unpackable
from ..layers.whole import WholeEncoder
from .call import Call
from .inputs import checked_mask, expanded, find_tokens, padded_positions, protected_places
from .live_encoder import live_encoder

_ONNX = (
    "a pruned model cannot be exported to ONNX: there are no ONNX operators for token pruning. Export the model before prune_model "
    "(dense), or this one with torch.export.export, which AOTInductor and torch.export.load run"
)
_JIT = (
    "a pruned model cannot be traced by torch.jit.trace, which would keep the decisions made for the example's tokens: use "
    "torch.export.export, whose programs decide for each input"
)


@dataclass(frozen=True)
class PaddedBatch:
    """The batch of a traced call: its mask (B, L) bool, and L. Whether texts start in column 0 only data can say."""

    mask: Tensor
    length: int
    starts_at_zero: bool = False


def refuse_other_tracers() -> None:
    """Raise RuntimeError under tracers that would make a wrong model, or one that nothing runs."""
    if _exports_to_onnx():
        raise RuntimeError(_ONNX)
    if torch.jit.is_tracing():
        raise RuntimeError(_JIT)


@torch.compiler.assume_constant_result
def _exports_to_onnx() -> bool:
    # Asked at the time of tracing: in code that dynamo traces, torch's answer would be no.
    return torch.onnx.is_in_onnx_export()


def is_traced(encoder: nn.Module, call: Call) -> bool:
    """Whether this call is to be traced between padded tensors; raises where an export asks for more than such a program gives.

    Under torch.compile what needs more (gradients, hidden states, what was pruned) takes the ordinary way, with graph breaks.
    """
    if not torch.compiler.is_compiling():
        return False
    if torch.compiler.is_exporting():
        _refuse_unexportable(encoder, call)
        return True
    autocast = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
    return not (torch.is_grad_enabled() or encoder.training or autocast or _asks_for_more(call))


def padded_inputs(base: nn.Module, encoder: nn.Module, arguments: dict[str, Any], call: Call) -> None:
    """Set call.batch and call.protected, and in `arguments` the positions of the live tokens: those the packed input would have."""
    _, tokens = find_tokens(arguments)
    batch, length = tokens.shape[:2]
    mask = arguments.get("attention_mask")
    if mask is None:
        mask = torch.ones((batch, length), dtype=torch.bool, device=tokens.device)
    mask = checked_mask(mask, batch, length).to(tokens.device) != 0
    call.traced, call.batch = True, PaddedBatch(mask, length)
    call.protected = protected_places(encoder.pruning.protected_token_ids, encoder.protected_token_ids, arguments)
    for given in ("token_type_ids", "task_type_ids", "position_ids"):
        if arguments.get(given) is not None:
            arguments[given] = expanded(given, arguments[given], batch, length)
    if arguments.get("position_ids") is None:
        arguments["position_ids"] = padded_positions(base.config, arguments.get("input_ids"), mask)
    # As in the packed form: transformers hands a 4-D mask on as it is.
    arguments["attention_mask"] = tokens.new_empty((1, 1, 0, 0))


def run_traced(encoder: nn.Module, x: Tensor, call: Call) -> Tensor:
    """The encoder of embedded x (B, L, H): (B, L, H), with call.first set, or (B, 1, H) where only the first tokens are read."""
    pruning, mask = encoder.pruning, call.batch.mask
    first_only = call.first_only and pruning.protect_first
    if torch.compiler.is_exporting():
        out = _constant_layers(encoder, x).run_padded(x, mask, pruning, call.protected, first_only, call.survivor_mean)
    else:
        out = live_encoder(x, mask, call.protected, first_only, call.survivor_mean, encoder.handle)
    if first_only:
        return out[:, None]
    columns = mask.int().argmax(dim=1)  # column 0, zeros, for an empty text
    call.first = out.gather(1, columns[:, None, None].expand(-1, 1, out.shape[2])).squeeze(1)
    return out


def _constant_layers(encoder: nn.Module, x: Tensor) -> WholeEncoder:
    """The layers as the program holds them: as packed when the model was frozen, or packed by the program at every call."""
    if encoder.is_frozen:
        if x.dtype != encoder.layer.stack.dtype:
            raise TypeError(f"the embeddings are {x.dtype}, the frozen layers {encoder.layer.stack.dtype}: use one dtype for both")
        whole = encoder.layer.exportable()
    else:
        whole = _packed_by_the_program(encoder, x)
    if whole is None:
        raise ValueError("a pruned model can be exported only with layers of one kind and gelu or relu activations")
    return whole


def _packed_by_the_program(encoder: nn.Module, x: Tensor) -> WholeEncoder | None:
    views = [encoder.adapter.layer_modules(layer) for layer in encoder.layer]
    for index, view in enumerate(views):
        if is_hooked(view.layer) or unpackable(view, x.dtype):
            raise ValueError(
                f"layer {index} cannot be exported: it, its linear layers and its LayerNorms must be plain modules of {x.dtype}, without "
                "hooks. Merge adapters into it first, with PEFT peft_model.merge_and_unload()"
            )
    return WholeEncoder.of([pack_layer(view, x.dtype, OPS) for view in views], views)


def _refuse_unexportable(encoder: nn.Module, call: Call) -> None:
    if encoder.training:
        raise ValueError("a pruned model is exported for inference: call model.eval() first")
    if _asks_for_more(call):
        raise ValueError(
            "an exported program gives a pruned model's outputs only: leave out output_pruning, output_hidden_states, "
            "output_attentions and soft_pruning"
        )
    if encoder.is_frozen:
        return
    weight = next(encoder.layer.parameters())
    if weight.device.type != "cpu" or weight.dtype not in COMPILED_FLOATS:
        raise ValueError(
            f"only float32 and bfloat16 models on the CPU can be exported, got {weight.dtype} on {weight.device}: call "
            'model.float() or model.bfloat16(), and model.to("cpu")'
        )


def _asks_for_more(call: Call) -> bool:
    states_wanted = call.output_hidden_states is not None and call.output_hidden_states is not False
    return call.output_pruning or call.output_attentions or states_wanted or call.soft_pruning is not None
