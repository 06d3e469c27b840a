"""The input of a base model: what is refused, and the packed form that its embeddings get."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from ..layers.without_sync import capacity_batch
from ..packing import PackedBatch
from .adapters import first_position, longest_text

_UNSUPPORTED = {
    "encoder_hidden_states": "cross-attention",
    "encoder_attention_mask": "cross-attention",
    "past_key_values": "a key/value cache",
    "cache": "a key/value cache",
}
_IDS = (torch.int64, torch.int32)
# What embeddings may look up for each token beside the token and its position; ERNIE has both.
_TYPES = ("token_type_ids", "task_type_ids")


def refuse_unsupported(config: Any, arguments: dict[str, Any]) -> None:
    """Raise ValueError if something is asked for that a pruned encoder cannot do.

    `use_cache` is not: transformers ignores it in an encoder, too.
    """
    for name, what in _UNSUPPORTED.items():
        value = arguments.get(name)
        if value is not None and value is not False:
            raise ValueError(f"{what} is not supported by a pruned encoder: leave out {name}")
    if getattr(config, "is_decoder", False):
        raise ValueError("a decoder cannot be pruned: set config.is_decoder=False for an encoder")


def pack_inputs(config: Any, arguments: dict[str, Any], without_sync: Callable[[Tensor], bool] = lambda _: False) -> PackedBatch:
    """Replace the padded input in `arguments` by the packed one, (1, T), in place; returns where its tokens belong.

    without_sync: says of the input (B, L, ...) whether to pack it with room for all of its places, so that the host need not wait.
    Positions count live tokens only, so that padding of any kind is moot (`padded_positions`); a caller's own position_ids are used as given.
    Raises ValueError or TypeError naming the argument that is wrong.
    """
    name, tokens = find_tokens(arguments)
    batch, length = tokens.shape[:2]
    mask = arguments.get("attention_mask")
    packed = packed_batch(mask, batch, length, tokens.device, without_sync(tokens))
    ids = arguments.get("input_ids")
    arguments[name] = packed.select(tokens)[None]
    for types in _TYPES:
        if arguments.get(types) is not None:
            arguments[types] = packed.select(expanded(types, arguments[types], batch, length))[None]
    positions = arguments.get("position_ids")
    if positions is not None:
        positions = packed.select(expanded("position_ids", positions, batch, length))
    elif packed.max_seqlen <= longest_text(config):
        positions = _positions(config, arguments.get("attention_mask"), ids, packed)
    else:
        raise ValueError(
            f"{name} holds a text of {packed.max_seqlen} tokens, but the model has positions for {longest_text(config)}: "
            "truncate it, for example with tokenizer(..., truncation=True)"
        )
    arguments["position_ids"] = positions[None]
    # transformers hands a 4-D mask on as it is. Anything else would make it form a T x T one with some attn_implementations.
    arguments["attention_mask"] = tokens.new_empty((1, 1, 0, 0))
    return packed


def _positions(config: Any, mask: Tensor | None, ids: Tensor | None, packed: PackedBatch) -> Tensor:
    """(T,) int64: as `padded_positions`, without work where there is nothing to look for in the ids."""
    first = first_position(config)
    if not first or ids is None:
        positions = packed.position.long()
        return positions + first if first else positions
    live = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.to(ids.device) != 0
    return packed.select(padded_positions(config, ids, live))


def padded_positions(config: Any, ids: Tensor | None, live: Tensor) -> Tensor:
    """(B, L) int64: each token's place among the live ones of its text, from the model's first position; padding has one that exists.

    Where positions begin behind the padding's (RoBERTa), a live token that is the padding's has that position and does not count, as in
    Hugging Face: "<pad>" in a text, or padding without a mask. Without ids nobody can tell.
    ids: (B, L), None for embeddings.   live: (B, L) bool.
    """
    first = first_position(config)
    if not first:
        return live.cumsum(1).sub(1).clamp(min=0)
    counted = live if ids is None else live & (ids != config.pad_token_id)
    return counted.cumsum(1) * counted + (first - 1)


def protected_tokens(asked: tuple[int, ...], token_ids: tuple[int, ...], arguments: dict[str, Any]) -> Tensor | None:
    """(T,) bool: which packed input ids are never pruned, of which some were asked for; None if there are none to look for."""
    places = protected_places(asked, token_ids, arguments)
    return None if places is None else places[0]


def protected_places(asked: tuple[int, ...], token_ids: tuple[int, ...], arguments: dict[str, Any]) -> Tensor | None:
    """As `protected_tokens`, of input ids as they are: bool of their shape."""
    if not token_ids:
        return None
    ids = arguments.get("input_ids")
    if ids is None and not asked:
        return None
    if ids is None:
        raise ValueError("protected_token_ids needs input_ids: embeddings do not say which token is which")
    # Not torch.isin, whose second tensor would have to be sent to the device.
    return reduce(torch.bitwise_or, (ids == token for token in token_ids))


def find_tokens(arguments: dict[str, Any]) -> tuple[str, Tensor]:
    """Name and value of the one of input_ids (B, L) and inputs_embeds (B, L, H) that was given."""
    ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
    if (ids is None) == (embeds is None):
        raise ValueError("give exactly one of input_ids and inputs_embeds")
    name, tokens, dims = ("input_ids", ids, 2) if embeds is None else ("inputs_embeds", embeds, 3)
    if not isinstance(tokens, Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor, got {type(tokens).__name__}; ask the tokenizer for return_tensors='pt'"
        )
    if tokens.dim() != dims:
        shape = "(batch, length)" if dims == 2 else "(batch, length, hidden)"
        raise ValueError(f"{name} must be {shape}, got shape {tuple(tokens.shape)}")
    if dims == 2 and tokens.dtype not in _IDS:
        raise TypeError(f"input_ids must be int64 or int32, got {tokens.dtype}")
    return name, tokens


def packed_batch(mask: Any, batch: int, length: int, device: torch.device, without_sync: bool) -> PackedBatch:
    """The packed form of an attention mask (B, L), of none given all places being live; raises ValueError or TypeError."""
    if mask is None and not without_sync:
        return PackedBatch.unpadded(batch, length, device)
    if mask is None:
        mask = torch.ones(batch, length, dtype=torch.bool, device=device)
    mask = checked_mask(mask, batch, length).to(device)
    return capacity_batch(mask) if without_sync else PackedBatch.from_mask(mask)


def checked_mask(mask: Any, batch: int, length: int) -> Tensor:
    """The attention mask, if it is one of tokens (B, L); raises ValueError or TypeError."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"attention_mask must be a torch.Tensor, got {type(mask).__name__}")
    if mask.dim() != 2:
        raise ValueError(
            f"attention_mask must be (batch, length) with 1 for tokens and 0 for padding, got shape {tuple(mask.shape)}: "
            "masks over pairs of tokens are not supported by a pruned encoder"
        )
    if mask.shape != (batch, length):
        raise ValueError(f"attention_mask must have the shape of the input, {(batch, length)}, got {tuple(mask.shape)}")
    if mask.is_complex():
        raise TypeError(f"attention_mask must be of a real dtype, got {mask.dtype}")
    return mask


def expanded(name: str, values: Any, batch: int, length: int) -> Tensor:
    """values (B, L) or (1, L) as (B, L)."""
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(values).__name__}")
    if values.shape not in ((batch, length), (1, length)):
        raise ValueError(f"{name} must have the shape of the input, {(batch, length)}, got {tuple(values.shape)}")
    return values.expand(batch, length)
