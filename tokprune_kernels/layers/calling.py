"""Running a layer inside a call of its module, so that the hooks on it are called: those of a user, of FSDP, of accelerate.

They see the packed states of the tokens alive, (1, T, H) before and (1, T', H) after the layer. What the module would compute itself is
not run, and without hooks neither is the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

# By which transformers collects hidden states and attention maps of models that call their layers; they stay where they were once put.
COLLECTING = "transformers.utils.output_capturing"
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_BODY = "tokprune_body"


def is_hooked(module: nn.Module) -> bool:
    """Whether something other than transformers' own collectors waits for a call of the module."""
    hooks = (hook for name in HOOKS for hook in getattr(module, name).values())
    return "_old_forward" in module.__dict__ or any(getattr(hook, "__module__", "") != COLLECTING for hook in hooks)


def call_around(module: nn.Module, body: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """body(x) for packed x (T, H), inside a call of the module."""
    name = "_old_forward" if "_old_forward" in module.__dict__ else "forward"  # accelerate's hook stands at forward
    if not isinstance(module.__dict__.get(name), _Forward):
        setattr(module, name, _Forward(module, module.__dict__.get(name)))
    # Not module(...): older transformers checkpoint a layer there, and decisions must not be made again.
    return nn.Module.__call__(module, x[None], **{_BODY: body}).squeeze(0)


class _Forward:
    """A layer's forward that runs what it is given; without that the layer's own, for whoever calls the layer alone."""

    def __init__(self, module: nn.Module, inner: Callable | None):
        self.module, self.inner = module, inner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        body = kwargs.pop(_BODY, None)
        if body is not None:
            return body(args[0].squeeze(0))[None]
        if self.inner is not None:
            return self.inner(*args, **kwargs)
        return type(self.module).forward(self.module, *args, **kwargs)
