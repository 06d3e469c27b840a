"""The encoder that takes the place of a model's own: it runs on packed tokens and restores the padded output."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from ..layers.compute import ROW_MULTIPLE, module_layer
from ..layers.exits import ExitBuffer, ExitList, Exits, with_survivor_means
from ..layers.frozen import FrozenLayers
from ..layers.kernels import GPU_LAYOUT, OPS, has_packed_linear, select_kernels
from ..layers.loop import Alive, Run, run_layers
from ..layers.maps import AttentionMaps
from ..layers.packed import PackedLayers, PackedStack
from ..layers.recorder import HiddenStates, Recorder
from ..layers.soft import run_soft_layers
from ..layers.unheard import Unheard
from ..layers.without_sync import GRAPH_PLACES_DENSE, GRAPH_PLACES_PRUNED, MODES, GraphEncoder, available
from ..packing import first_rows
from ..pruning_config import PruningConfig
from .adapters import Adapter, longest_text
from .call import KEYWORD, Call
from .inputs import packed_batch
from .live_encoder import register
from .tracing import run_traced


class PrunedEncoder(nn.Module):
    """Runs the layers of a Hugging Face encoder and removes tokens on the way.

    layer: the original ModuleList, under its original name, so that checkpoints keep their format; while frozen what
    stands for it.
    argument_names: of the base model's forward, for its entry.   fills_masks, mask_token_id: of a masked language model's.
    """

    def __init__(self, base: nn.Module, adapter: Adapter, pruning: PruningConfig | Mapping | None):
        super().__init__()
        encoder = adapter.encoder(base)
        self.layer = encoder.layer
        self.training = encoder.training
        self.config = base.config
        self.adapter = adapter
        self.argument_names = tuple(inspect.signature(type(base).forward).parameters)[1:]  # without self
        self.unheard: Unheard | None = None  # of `layer`, until that is replaced
        self.said: set[str] = set()
        self.fills_masks, self.mask_token_id = False, None
        self.packed_layers = PackedLayers()
        self.graphs = GraphEncoder()
        self.gpu_mode = "auto"
        self.handle = register(self)
        self.set_pruning(pruning)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy or an unpickled one, which has a handle of its own."""
        super().__setstate__(state)
        self.handle = register(self)

    def set_pruning(self, pruning: PruningConfig | Mapping | None) -> None:
        """Prune by this configuration from now on; None = dense. It is written to config.pruning as well.

        Raises TypeError unless it is a PruningConfig or a dict of one, ValueError if it does not fit the number of layers.
        """
        pruning = as_pruning_config(pruning)
        pruning.validate(len(self.layer))
        self.pruning, self.written = pruning, pruning.to_dict()
        self.config.pruning = self.written

    @property
    def protected_token_ids(self) -> tuple[int, ...]:
        """The input ids that are never pruned: the configuration's, and [MASK] where masks are filled."""
        asked = self.pruning.protected_token_ids
        if not self.fills_masks or self.pruning.is_dense:
            return asked
        if self.mask_token_id is None:
            if not asked:
                self.say_once("mask", _UNKNOWN_MASK)
            return asked
        return asked if self.mask_token_id in asked else (*asked, self.mask_token_id)

    def follow_config(self) -> None:
        """Prune by what stands in config.pruning, where that was set by hand since."""
        found = getattr(self.config, "pruning", None)
        if torch.compiler.is_compiling():  # which does not know the very same dict, and cannot read a new one
            if found != self.written:
                raise ValueError("config.pruning was set by hand: call model.set_pruning(...) before torch.compile or torch.export")
        elif found is not self.written:
            self.set_pruning(found)

    def say_once(self, what: str, message: str) -> None:
        """Warn, the first time that this is to be said of this model."""
        if what not in self.said and not torch.compiler.is_compiling():
            self.said.add(what)
            warnings.warn(f"tokprune_kernels: {message}", UserWarning, stacklevel=2)

    def set_gpu_mode(self, mode: str) -> None:
        """How inference runs on a GPU, with the same results to rounding.

        "exact": tokens are counted on the host, once for the input and once for each layer that prunes; any size, library products.
        "graph": the host never waits; one CUDA graph for each size of batch, with room for all its padding.
        "auto" (default): "graph" for 16-bit batches (layers.without_sync.GRAPH_PLACES_*) where launches and waiting take the time.

        Raises ValueError for another mode.
        """
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(map(repr, MODES))}, got {mode!r}")
        self.gpu_mode = mode

    def runs_without_sync(self, call: Call, tokens: Tensor) -> bool:
        """Whether a call with this input, (B, L) or (B, L, H), is to be packed and run without a host sync; call.whole is set then."""
        if self.gpu_mode == "exact" or self.is_frozen or not available(tokens.device) or not tokens.numel():
            return False
        if tokens.shape[1] > longest_text(self.config):  # of the padding; the texts, which only the device knows, may fit
            return False
        weight = next(self.layer.parameters())
        inference = not (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling())
        asked = call.output_pruning or call.output_attentions or call.soft_pruning is not None
        asked = asked or call.output_hidden_states not in (None, False) or (call.survivor_mean and not self.pruning.is_dense)
        places = GRAPH_PLACES_DENSE if self.pruning.is_dense else GRAPH_PLACES_PRUNED
        asked = asked or self._hooked()
        wanted = self.gpu_mode == "graph" or (weight.dtype != torch.float32 and tokens.shape[0] * tokens.shape[1] <= places)
        head_dim = self.config.hidden_size // self.config.num_attention_heads
        if (
            wanted
            and inference
            and not asked
            and not torch.is_autocast_enabled(tokens.device.type)
            and select_kernels(weight, head_dim) is OPS
        ):
            call.whole = self._gpu_stack(weight).whole
        return call.whole is not None

    def _gpu_stack(self, x: Tensor) -> PackedStack:
        return self.packed_layers.get(self.layer, self.adapter.layer_modules, x.dtype, GPU_LAYOUT, x.device.type)

    @property
    def is_frozen(self) -> bool:
        """Whether the layers exist in packed form only."""
        return isinstance(self.layer, FrozenLayers)

    def freeze(self) -> None:
        """Keep the layers in packed form only; ValueError if that cannot be, see FrozenLayers."""
        if not self.is_frozen:
            self.packed_layers.clear()
            self.layer = FrozenLayers(self.layer, self.adapter.layer_modules)

    def unfreeze(self) -> None:
        """Bring the layers back as they were."""
        if self.is_frozen:
            self.layer = self.layer.thaw()

    def train(self, mode: bool = True) -> PrunedEncoder:
        """As nn.Module.train; packed weights are dropped, since weights that train change under them."""
        if mode:
            self._forget_packed()
        return super().train(mode)

    def _apply(self, fn, recurse=True):
        """As nn.Module's, which `to` and its like call: what was made of weights on another device is not kept there."""
        self._forget_packed()
        return super()._apply(fn, recurse)

    def _forget_packed(self) -> None:
        self.packed_layers.clear()
        self.graphs.clear()

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any):
        """hidden_states (1, T, H) of the packed tokens -> last_hidden_state (B, L, H), or (B, 1, H) for first-token heads."""
        call: Call | None = kwargs.get(KEYWORD)
        if call is None:
            raise ValueError("a pruned encoder runs only inside its model: call model(...), not model.encoder(...)")
        if call.traced:
            return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=run_traced(self, hidden_states, call))
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=self.run_packed(hidden_states.squeeze(0), call))

    def run_padded(self, x: Tensor, mask: Tensor, protected: Tensor | None, first_only: bool, means: bool) -> Tensor:
        """x, a padded batch that was embedded (B, L, H), as a call of the model would run it: (B, L, H), or with first_only (B, H)."""
        call = Call(first_only=first_only, survivor_mean=means)
        call.batch = packed_batch(mask, *x.shape[:2], x.device, self.runs_without_sync(call, x))
        call.protected = None if protected is None else call.batch.select(protected)
        states = self.run_packed(call.batch.select(x), call)
        return states[:, 0] if first_only else states

    def run_packed(self, x: Tensor, call: Call) -> Tensor:
        """x, embedded tokens (T, H) of call.batch -> (B, L, H), or (B, 1, H) for first-token heads."""
        if not call.batch.exact:
            return self._run_without_sync(x, call)
        if self.is_frozen:
            self.layer.check_call(x, self.training)
        layers_are_hooked = not self.is_frozen and self._hooked()
        if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in self.parameters())):
            return self._run(x, call, differentiable=True)
        if self.is_frozen or (call.soft_pruning is None and self._runs_packed(x)):
            # The gradient formulas are registered in Python; without gradients the way around them saves a few
            # microseconds an op.
            with torch._C._AutoDispatchBelowAutograd():
                return self._run(x, call, packed=True, whole=not layers_are_hooked)
        return self._run(x, call)

    def _run_without_sync(self, x: Tensor, call: Call) -> Tensor:
        if call.whole.weights[0].dtype != x.dtype:
            raise TypeError(f"the embeddings are {x.dtype}, the layers are not: convert the whole model to one dtype with model.to(dtype)")
        first_only = call.first_only and self.pruning.protect_first
        states, call.first = self.graphs.run(call.whole, x, call.batch, self.pruning, call.protected, first_only)
        return call.first[:, None] if first_only else states

    def _runs_packed(self, x: Tensor) -> bool:
        return (
            not self.training
            and not torch.compiler.is_compiling()
            and has_packed_linear(x)
            and not torch.is_autocast_enabled(x.device.type)
        )

    def _packed_stack(self, x: Tensor, kernels: SimpleNamespace) -> PackedStack:
        if self.is_frozen:
            return self.layer.stack
        if x.device.type != "cpu":
            return self._gpu_stack(x)
        return self.packed_layers.get(self.layer, self.adapter.layer_modules, x.dtype, kernels)

    def _run(self, x: Tensor, call: Call, differentiable: bool = False, packed: bool = False, whole: bool = False) -> Tensor:
        batch, pruning = call.batch, self.pruning
        kernels = select_kernels(x, x.shape[1] // self.config.num_attention_heads)
        states_wanted = call.output_hidden_states is not None and call.output_hidden_states is not False
        # A first token that may leave has an exit state, which must be restored.
        first_only = call.first_only and pruning.protect_first and not states_wanted
        if packed:
            stack = self._packed_stack(x, kernels)
            runs_whole = whole and x.device.type == "cpu" and stack.whole is not None and kernels is OPS
            if runs_whole and not (states_wanted or call.output_pruning or call.output_attentions or call.soft_pruning):
                states = stack.whole.run(x, batch, pruning, call.protected, first_only, call.survivor_mean)
                return states[:, None] if first_only else states
            layers = stack.layers
        else:
            multiple = ROW_MULTIPLE if _compiles_for_row_counts(x) else 1
            views = [self.adapter.layer_modules(one) for one in self.layer]
            if any(view.drops_probabilities for view in views):
                self.say_once("dropout", _NO_ATTENTION_DROPOUT)
            layers = [module_layer(view, multiple, differentiable) for view in views]
        exits = Exits(batch) if first_only else ExitList(batch) if differentiable else ExitBuffer(batch, kernels)
        recorder = Recorder(batch) if call.output_pruning else None
        hidden_states = HiddenStates(exits) if states_wanted else None

        alive = Alive(x, batch.token_idx, batch.cu_seqlens, call.protected)
        if call.output_attentions:
            self.say_once("attentions", _MAPS_ARE_SLOW)
            kernels = AttentionMaps(batch, kernels, alive)
        run = Run(batch, pruning, kernels, exits, recorder, hidden_states)
        if call.soft_pruning is None:
            run_layers(run, layers, alive)
        else:
            run_soft_layers(run, layers, alive, call.soft_pruning)

        if recorder is not None:
            call.pruning = recorder.finish(alive.token_idx, alive.cu_seqlens)
        if call.output_attentions:
            call.attentions = tuple(kernels.maps)
        if first_only:
            return first_rows(alive.x, alive.cu_seqlens)[:, None]
        states = [] if hidden_states is None else hidden_states.states
        if call.survivor_mean:
            last = with_survivor_means(alive.x, alive.token_idx, alive.cu_seqlens, batch)
        else:
            last = states[-1] if states else exits.restore(alive.x, alive.token_idx)
        if states:
            call.hidden_states = (*states[:-1], last)
        return last

    def _hooked(self) -> bool:
        """Whether layers have hooks, which are called around them; a warning of those on other modules that are never called."""
        if torch.compiler.is_compiling():
            return False
        if self.unheard is None or not self.unheard.is_of(self.layer):
            self.unheard = Unheard(self.layer, [self.adapter.layer_modules(layer) for layer in self.layer])
        layers, inner = self.unheard.hooked()
        if inner is not None:
            self.say_once(inner, f"a hook on {inner} is never called: {_WHAT_IS_CALLED}")
        return layers

    def _replicate_for_data_parallel(self) -> PrunedEncoder:
        """As nn.Module's; what was made of the weights on one device is not another's."""
        replica = super()._replicate_for_data_parallel()
        replica.packed_layers, replica.graphs, replica.unheard = PackedLayers(), GraphEncoder(), None
        replica.handle = register(replica)
        return replica


_NO_ATTENTION_DROPOUT = (
    "the attention dropout of the model's configuration is not applied in training: the attention probabilities that make the importance "
    "of tokens are the ones that make the context. Dropout of hidden states is applied as ever"
)
_UNKNOWN_MASK = (
    "the model fills masks, but which token is [MASK] is not known, so that it may be pruned: set config.mask_token_id, or give the "
    "PruningConfig protected_token_ids=[tokenizer.mask_token_id]"
)
_MAPS_ARE_SLOW = (
    "attention maps were asked for (output_attentions): they are formed layer by layer in plain PyTorch, which is slow and takes memory by "
    "the square of the length. Leave it out where speed counts; output_pruning=True gives the importance of every token without them"
)
_WHAT_IS_CALLED = (
    "a pruned encoder runs on packed tokens, which do not pass the modules inside a layer but its linear layers and LayerNorms. Hooks on "
    "those, on whole layers, embeddings, pooler and heads are called; output_hidden_states and output_attentions give what others look for"
)


def _compiles_for_row_counts(x: Tensor) -> bool:
    """Whether the linear layers will run in oneDNN's bfloat16 kernels, see ROW_MULTIPLE."""
    if x.device.type != "cpu":
        return False
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return autocast or x.dtype == torch.bfloat16


def as_pruning_config(pruning: PruningConfig | Mapping | None) -> PruningConfig:
    """A PruningConfig from one, from its dict, or None (dense); TypeError for anything else."""
    if pruning is None:
        return PruningConfig.dense()
    if isinstance(pruning, PruningConfig):
        return pruning
    if isinstance(pruning, Mapping):
        return PruningConfig.from_dict(pruning)
    raise TypeError(f"pruning must be a PruningConfig, its to_dict() or None, got {pruning!r}")
