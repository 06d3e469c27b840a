"""Layers that exist in packed form only: one copy of the weights in memory, and nothing to check at a call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from .kernels import COMPILED, has_packed_linear, select_kernels
from .modules import LayerModules
from .packed import PackedStack, View
from .packed_layer import unpackable
from .whole import WholeEncoder


class FrozenLayers(nn.Module):
    """Stands where a model had its list of layers, whose linear weights are gone until `thaw` unpacks them.

    What needs the layers themselves raises a RuntimeError that says so. Copies and pickles carry weights of their own.

    layers: in eval mode, all on the CPU in one dtype; their nn.Linear weights are emptied here.   view: of one of them.
    Raises ValueError, with nothing changed, if a linear layer or LayerNorm is no plain module that can be packed.
    """

    def __init__(self, layers: nn.ModuleList, view: View):
        super().__init__()
        self.training = False
        views, weight = [view(layer) for layer in layers], next(layers.parameters())
        _check_packable(layers, views, weight)
        self.stack = PackedStack(views, weight.dtype, select_kernels(weight, views[0].head_dim))
        # In a tuple, so that they are no submodules: nothing may find layers without weights.
        self._originals = (layers, view)
        with torch.inference_mode(False), torch.no_grad():
            for part in self.stack.parts:
                for module in part.modules:
                    module.weight.data = module.weight.data.new_empty(0)
            # As buffers too, for programs that are exported with them.
            for index, weight in enumerate(self.stack.whole.weights if self.stack.whole is not None else ()):
                self.register_buffer(f"packed_{index}", weight.detach(), persistent=False)

    def thaw(self) -> nn.ModuleList:
        """The layers as they were, the very same modules and parameters; these frozen ones are of no more use."""
        _fill(self._unpacked())
        return self._originals[0]

    def exportable(self) -> WholeEncoder | None:
        """The layers as one, of weights that are this module's buffers."""
        whole = self.stack.whole
        return None if whole is None else WholeEncoder(list(self._buffers.values()), whole.eps, whole.heads, whole.activation, whole.scale)

    def check_call(self, x: Tensor, training: bool) -> None:
        """RuntimeError unless the packed layers can run on x, (T, H), here and now."""
        if torch.is_grad_enabled():
            _refuse("gradients", "run it under torch.no_grad() or torch.inference_mode()")
        if training:
            _refuse("training mode", "call eval()")
        if torch.is_autocast_enabled("cpu"):
            _refuse("autocast", "run it outside torch.autocast")
        if torch.compiler.is_compiling():
            _refuse("torch.compile", "run it as it is")
        if x.dtype != self.stack.dtype or x.device.type != "cpu":
            _refuse(f"{x.dtype} on {x.device}", f"it takes {self.stack.dtype} on the CPU")

    def train(self, mode: bool = True) -> FrozenLayers:
        """Refused, but for eval mode."""
        return super().train(mode) if not mode else _refuse("training mode")

    def _apply(self, fn: Callable, recurse: bool = True) -> FrozenLayers:
        probe = fn(torch.empty(0, dtype=self.stack.dtype))
        if probe.dtype != self.stack.dtype or probe.device.type != "cpu":
            _refuse(f"conversion to {probe.dtype} on {probe.device}")
        return self

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("state_dict() or saving")

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("load_state_dict()")

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: these are no callable layers."""
        _refuse("a call of the layers themselves")

    def __getitem__(self, index: Any) -> NoReturn:
        _refuse("access to the layers")

    def __len__(self) -> int:
        return len(self.stack.layers)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "qconfig":  # so torch.ao marks every module before it replaces those that it finds inside
            _refuse("quantisation by modules", "quantise it before it is frozen")
        super().__setattr__(name, value)

    def extra_repr(self) -> str:
        return f"{len(self)} layers, {self.stack.dtype}"

    def __reduce__(self):
        # The layers and, beside them, their weights as they were: what they share with the model (its configuration)
        # stays shared, and the machine that reads the pickle packs for itself.
        return _refrozen, (*self._originals, list(self._unpacked()))

    def _unpacked(self) -> Iterator[tuple[nn.Linear, Tensor]]:
        return (pair for part in self.stack.parts for pair in part.unpack())


def _refrozen(layers: nn.ModuleList, view: View, weights: Iterable[tuple[nn.Linear, Tensor]]) -> FrozenLayers:
    _fill(weights)
    return FrozenLayers(layers, view)


def _fill(weights: Iterable[tuple[nn.Linear, Tensor]]) -> None:
    for module, weight in weights:
        # Into the parameter that was emptied: an optimiser that holds it holds the model's parameter again.
        module.weight.data = weight


def _check_packable(layers: nn.ModuleList, views: Iterable[LayerModules], weight: Tensor) -> None:
    if not COMPILED:
        raise ValueError("freezing needs the compiled kernels: plain PyTorch would unpack the weights at every call")
    if not has_packed_linear(weight):
        raise ValueError(
            f"only float32 and bfloat16 weights on the CPU can be frozen, got {weight.dtype} on {weight.device}: "
            'call model.float() or model.bfloat16(), and model.to("cpu")'
        )
    for index, view in enumerate(views):
        for module in unpackable(view, weight.dtype):
            name = next(name for name, one in layers[index].named_modules() if one is module)
            raise ValueError(
                f"layer {index}'s {name} ({type(module).__name__}) cannot be frozen: it must be a plain nn.Linear or "
                f"nn.LayerNorm of {weight.dtype}, without hooks. {_remedy(module, weight)}"
            )


def _remedy(module: nn.Module, weight: Tensor) -> str:
    """What to do about a module that cannot be packed, by what it is."""
    if type(module).__module__.startswith("peft."):
        return "Merge its adapter first: merge_and_unload() of the PEFT model, or model.merge_adapter()"
    if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
        return "Take its hooks off first (handle.remove(); accelerate: remove_hook_from_module(model, recurse=True))"
    if type(module) in (nn.Linear, nn.LayerNorm) and any(p.dtype != weight.dtype for p in module.parameters()):
        return f"Convert the whole model to one dtype first, for example model.to({weight.dtype})"
    return "Merge what it adds (an adapter, a parametrisation) into a plain layer first; unfrozen it runs as the module that it is"


def _refuse(what: str, remedy: str | None = None) -> NoReturn:
    or_else = "" if remedy is None else f"{remedy}, or "
    raise RuntimeError(f"no {what} while the model is frozen for inference: {or_else}call unfreeze() first")
