"""What stands at the `forward` of a pruned model and of its base model, where every caller passes.

`model(...)`, `model.forward(...)`, functional_call, wrappers and exporters all come through here; hooks would be run by the first alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import CodeType
from typing import Any

from torch import nn

# The keyword arguments that a pruned model takes besides its class's.
KEYWORDS = ("output_pruning", "soft_pruning")


class Entry:
    """A model's forward between what prepares its input and what completes its output.

    enter: (model, args, kwargs) -> (args, kwargs) for the forward inside.   leave: (model, kwargs, output) -> output; both module-level
    functions, so that a model with an entry can be copied and pickled.
    inner: the forward that the instance had before, or None: its class's.
    """

    def __init__(self, model: nn.Module, enter: Callable, leave: Callable, inner: Callable | None = None):
        self.model, self.enter, self.leave, self.inner = model, enter, leave, inner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = self.enter(self.model, args, kwargs)
        if self.inner is None:
            output = type(self.model).forward(self.model, *args, **kwargs)
        else:
            output = self.inner(*args, **kwargs)
        return self.leave(self.model, kwargs, output)

    @property
    def __code__(self) -> CodeType:
        """torch.export names the place of a model's forward by it."""
        return type(self).__call__.__code__

    @property
    def __signature__(self) -> inspect.Signature:
        """The forward's own, and the keywords of a pruned model: libraries ask it what a model takes and gives."""
        own = inspect.signature(self.inner or type(self.model).forward.__get__(self.model))
        parameters = list(own.parameters.values())
        extra = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in KEYWORDS]
        at = len(parameters) - (bool(parameters) and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD)
        return own.replace(parameters=[*parameters[:at], *extra, *parameters[at:]])


def set_entry(model: nn.Module, enter: Callable, leave: Callable) -> None:
    """Put an entry at the model's forward."""
    if "_old_forward" in model.__dict__:  # accelerate's hook stands at forward, calls this one, and puts it back when it goes
        model._old_forward = Entry(model, enter, leave, _own_forward(model, "_old_forward"))
    else:
        model.forward = Entry(model, enter, leave, _own_forward(model, "forward"))
    model._replicate_for_data_parallel = _Replicate(model)


def _own_forward(model: nn.Module, name: str) -> Callable | None:
    """What the instance has there, None where it is its class's method: a copy of the model must call its own."""
    forward = model.__dict__.get(name)
    return None if getattr(forward, "__func__", None) is type(model).forward else forward


class _Replicate:
    """DataParallel's copies share the instance's attributes, an entry of the original among them: they get their own."""

    def __init__(self, model: nn.Module):
        self.model = model

    def __call__(self) -> nn.Module:
        replica = type(self.model)._replicate_for_data_parallel(self.model)
        entry = self.model.__dict__["forward"]
        if isinstance(entry, Entry):
            replica.forward = Entry(replica, entry.enter, entry.leave, entry.inner)
        return replica
