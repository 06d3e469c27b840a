"""A pruned encoder as one op of a compiled program, by a number in place of its weights.

The program does not hold weights that could grow old, and what runs is what would run without compiling.
"""

from __future__ import annotations

import itertools
import threading
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

_encoders: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
_numbers = itertools.count()
_registering = threading.Lock()


def register(encoder: nn.Module) -> int:
    """A number by which `live_encoder` finds this encoder for as long as it lives, in this process."""
    with _registering:
        number = next(_numbers)
        _encoders[number] = encoder
    return number


# It reads sizes on the host, which no CUDA graph may record; the encoder brings its own graphs.
@torch.library.custom_op("tokprune_models::live_encoder", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,))
def live_encoder(x: Tensor, mask: Tensor, protected: Tensor | None, first_only: bool, means: bool, handle: int) -> Tensor:
    """The encoder of this handle on embedded x (B, L, H), mask (B, L), protected (B, L): (B, L, H), or (B, H) of first tokens."""
    return _encoders[handle].run_padded(x, mask, protected, first_only, means)


@live_encoder.register_fake
def _(x: Tensor, mask: Tensor, protected: Tensor | None, first_only: bool, means: bool, handle: int) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[2]) if first_only else x.shape)
