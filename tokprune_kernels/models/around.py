"""What is done around a Hugging Face model's forward: its input is packed before the embeddings, its output completed.

So embeddings, pooler and heads run unchanged, the embeddings on live tokens only. See `entry` for where these functions stand.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..layers.soft import check_soft_pruning
from ..packing import PackedBatch
from .adapters import encoder_of
from .call import KEYWORD, Call
from .entry import KEYWORDS, set_entry
from .inputs import pack_inputs, protected_tokens, refuse_unsupported
from .tracing import is_traced, padded_inputs, refuse_other_tracers


def enter_by_base(base: nn.Module) -> None:
    """Put the entry on a base model whose encoder is a PrunedEncoder."""
    set_entry(base, enter_base, leave_base)


def enter_by_head(model: nn.Module, first_only: bool) -> None:
    """Put the entry on a model with a head on such a base; first_only: of a kind that reads nothing but its first tokens."""
    set_entry(model, enter_first_only_head if first_only else enter_head, leave_head)


def enter_head(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
    """Before a model with a head: open the call, which travels to the base model in the keyword arguments."""
    return args, _open(model, kwargs, Call(by_head=True))


def enter_first_only_head(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
    """As `enter_head`, for a head that reads nothing but the first tokens, as long as it does."""
    adapter = encoder_of(getattr(model, model.base_model_prefix)).adapter
    return args, _open(model, kwargs, Call(by_head=True, first_only=adapter.reads_first_only(model)))


def leave_head(model: nn.Module, kwargs: dict[str, Any], output: Any) -> Any:
    """After a model with a head: add out.pruning if it was asked for, give a tuple if that was."""
    return _close(output, kwargs[KEYWORD])


def enter_base(base: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
    """Before the base model: pack its input."""
    refuse_other_tracers()
    encoder = encoder_of(base)
    encoder.follow_config()
    arguments = {**dict(zip(encoder.argument_names, args)), **kwargs}
    if KEYWORD not in arguments:
        readout = encoder.pruning.readout
        arguments = _open(base, arguments, Call(first_only=readout == "first", survivor_mean=readout == "survivor_mean"))
    call = arguments[KEYWORD]
    refuse_unsupported(base.config, arguments)
    # Said for the forward inside: its layers are not called, and would be found to have given nothing.
    wanted, arguments["output_hidden_states"] = arguments.get("output_hidden_states"), False
    call.output_hidden_states = base.config.output_hidden_states if wanted is None else wanted
    wanted, arguments["output_attentions"] = arguments.get("output_attentions"), False
    call.output_attentions = bool(base.config.output_attentions if wanted is None else wanted)
    if is_traced(encoder, call):
        padded_inputs(base, encoder, arguments, call)
        return (), arguments
    call.batch = pack_inputs(base.config, arguments, lambda tokens: encoder.runs_without_sync(call, tokens))
    call.protected = protected_tokens(encoder.pruning.protected_token_ids, encoder.protected_token_ids, arguments)
    return (), arguments


def leave_base(base: nn.Module, kwargs: dict[str, Any], output: Any) -> Any:
    """After the base model: hidden states, and what reads column 0 where a text does not start there."""
    call = kwargs[KEYWORD]
    if call.hidden_states is not None:
        output["hidden_states"] = _selected(call.hidden_states, call.output_hidden_states)
    if call.attentions is not None:
        output["attentions"] = call.attentions
    states, batch = output.last_hidden_state, call.batch
    restored = call.first is not None if call.traced else states.shape[1] == batch.length
    if restored and not batch.starts_at_zero:
        _read_first_live(base, call, output)
    if call.by_head:
        return output
    if call.first_only and not restored:  # who reads the first token finds it wherever it is
        output["last_hidden_state"] = states.expand(-1, batch.length, -1)
    return _close(output, call)


def _read_first_live(base: nn.Module, call: Call, output: Any) -> None:
    """Have what reads column 0 of restored states read each text's first live token instead."""
    pools = encoder_of(base).adapter.pools_first_token(base)
    if not (pools or call.first_only):
        return
    first = _first_live(output.last_hidden_state, call.batch) if call.first is None else call.first[:, None]
    if pools:
        output["pooler_output"] = base.pooler(first)
    if call.first_only and call.by_head:
        output["last_hidden_state"] = first


def _open(model: nn.Module, kwargs: dict[str, Any], call: Call) -> dict[str, Any]:
    """The keyword arguments with the call in them; the model is made to return a dict, which alone can be added to."""
    kwargs = dict(kwargs)
    pruning, soft_pruning = (kwargs.pop(name, None) for name in KEYWORDS)
    call.output_pruning, call.soft_pruning = bool(pruning), soft_pruning
    if call.soft_pruning is not None:
        check_soft_pruning(call.soft_pruning)
        if call.output_pruning:
            raise ValueError("output_pruning reports what was removed, and soft_pruning removes nothing: ask for one of them")
    wanted = kwargs.pop("return_dict", None)
    call.return_dict = model.config.return_dict if wanted is None else wanted
    return {**kwargs, "return_dict": True, KEYWORD: call}


def _close(output: Any, call: Call) -> Any:
    if call.pruning is not None:
        output["pruning"] = call.pruning
    return output if call.return_dict else output.to_tuple()


def _selected(states: tuple[Tensor, ...], wanted: bool | int | list[int]) -> tuple[Tensor | None, ...]:
    """All hidden states, or None in place of those that were not asked for, as transformers gives them."""
    if isinstance(wanted, bool):
        return states
    chosen = {index % len(states) for index in ([wanted] if isinstance(wanted, int) else wanted)}
    return tuple(state if index in chosen else None for index, state in enumerate(states))


def _first_live(restored: Tensor, batch: PackedBatch) -> Tensor:
    """(B, 1, H): the state of each text's first live token; that of column 0, zeros, for an empty text."""
    if not batch.total:
        return restored[:, :1]
    texts = torch.arange(batch.batch, device=restored.device)
    # An empty text has no first token, and the last text's start may lie past all rows: column 0, without asking the device.
    starts = batch.cu_seqlens[:-1].clamp(max=batch.total - 1)
    columns = torch.where(batch.lengths > 0, batch.token_idx[starts.long()].long() % batch.length, 0)
    return restored[texts, columns][:, None]
