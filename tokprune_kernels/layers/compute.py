"""What one layer computes around its attention: `qkv` before it, `finish` after it.

Written in terms of callables, which are the modules themselves or packed forms of them (see `packed`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .calling import call_around, is_hooked
from .modules import LayerModules
from .saved import for_three, through_activation


# torch's bfloat16 linear layers on the CPU (oneDNN) compile a kernel for every number of rows they have not seen, a few
# milliseconds a weight shape and direction. Packed and pruned batches have a new one in every layer of every step: a step of
# MiniLM on 32 short texts measured twice as long as with the rows rounded up to these.
ROW_MULTIPLE = 64


def whole_rows(x: Tensor, multiple: int) -> Tensor:
    """x (T, H) with rows of zeros added until T is a multiple; x itself if it is one."""
    missing = -x.shape[0] % multiple
    return torch.nn.functional.pad(x, (0, 0, 0, missing)) if missing else x


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as the loop runs it, on packed rows.

    qkv: x (T, H) -> q, k, v, each (T, N_h, d).   attention_out: context (T, N_h * d) -> (T, H).
    up: x -> (T, F).   down: back to (T, H); the activation is in one of them.
    norm_*: (new, residual) -> LayerNorm(new + residual).
    checkpoint: runs a function of tensors under gradient checkpointing, or None.
    module: what stands for the whole layer in the model, for the hooks on it.
    block_rows: rows that the feed-forward part takes at a time in long batches; None = all.
    row_multiple: rows of zeros are added until their number is a multiple of this.
    """

    qkv: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    attention_out: Callable[[Tensor], Tensor]
    norm_attention: Callable[[Tensor, Tensor], Tensor]
    up: Callable[[Tensor], Tensor]
    down: Callable[[Tensor], Tensor]
    norm_output: Callable[[Tensor, Tensor], Tensor]
    scale: float
    module: nn.Module
    checkpoint: Callable | None = None
    block_rows: int | None = None
    row_multiple: int = 1

    def run(self, body: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """body(x), what the loop makes of the layer, inside a call of its module where something waits for one."""
        return call_around(self.module, body, x) if is_hooked(self.module) else body(x)

    def finish(self, context: Tensor, residual: Tensor) -> Tensor:
        """The rest of the layer, for the tokens that stay: context (T, N_h, d) and residual (T, H) -> (T, H)."""
        # Decisions lie before this, so that recomputing it under checkpointing cannot decide differently.
        if self.checkpoint is not None:
            return self.checkpoint(self._finish, context, residual)
        return self._finish(context, residual)

    def _finish(self, context: Tensor, residual: Tensor) -> Tensor:
        rows, residual = residual.shape[0], whole_rows(residual, self.row_multiple)
        x = self.norm_attention(self.attention_out(whole_rows(context.flatten(1), self.row_multiple)), residual)
        return self.norm_output(self._feed_forward(x), x)[:rows]

    def _feed_forward(self, x: Tensor) -> Tensor:
        if self.block_rows is None or x.shape[0] <= 2 * self.block_rows:
            return self.down(self.up(x))
        # In blocks the wide activations stay in cache, and memory that was just freed is used again: 3244 rows of
        # BERT-base in float32 measured 1.2x faster than whole. Two blocks' worth or less is not worth putting together.
        return torch.cat([self.down(self.up(block)) for block in x.tensor_split(-(-x.shape[0] // self.block_rows))])


def module_layer(modules: LayerModules, row_multiple: int = 1, differentiable: bool = False) -> Layer:
    """The layer through its modules: any dtype and device, gradients, dropout, autocast, wrapped projections.

    row_multiple: rows of zeros are added for the modules' sake until their number is a multiple of this.
    differentiable: a backward pass will come; less is kept for it than autograd would (see `saved`).
    """
    keeps_less = differentiable and not torch.compiler.is_compiling()
    # Under checkpointing all is computed again; hooks of its own would keep what it gives up.
    recomputes = keeps_less and modules.checkpoint is None and modules.activation_name == "gelu"

    def qkv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, x = x.shape[0], whole_rows(x, row_multiple)
        projections = (modules.query, modules.key, modules.value)
        inputs = for_three(x) if keeps_less else (x, x, x)
        heads = (modules.heads, modules.head_dim)
        return tuple(project(own)[:rows].unflatten(1, heads) for project, own in zip(projections, inputs, strict=True))

    def down(x: Tensor) -> Tensor:
        if recomputes:  # the activation is with its output's only reader, not in `up`
            return modules.dropout_output(through_activation(modules.activation, x, modules.down))
        return modules.dropout_output(modules.down(x))

    return Layer(
        row_multiple=row_multiple,
        qkv=qkv,
        attention_out=lambda context: modules.dropout_attention(modules.attention_out(context)),
        norm_attention=lambda x, residual: modules.norm_attention(x + residual),
        up=modules.up if recomputes else lambda x: modules.activation(modules.up(x)),
        down=down,
        norm_output=lambda x, residual: modules.norm_output(x + residual),
        scale=modules.scale,
        module=modules.layer,
        checkpoint=modules.checkpoint,
    )
