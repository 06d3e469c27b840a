"""The one view of an encoder layer that the loop knows, whatever the model calls its modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class LayerModules:
    """The modules of one encoder layer that normalises after its residuals; models/ builds it for each model type.

    query, key, value: (., H) -> (., heads * head_dim).   attention_out: back to (., H).
    dropout_probabilities, dropout_attention, dropout_output: of the attention probabilities, which is not applied, and before the
        two residuals.
    norm_attention, norm_output: after the two residuals.   up, activation, down: the feed-forward part.
    activation_name: "gelu", "gelu_tanh" or "relu" if the activation is one of them, else None.
    layer: the module of the whole layer, for the hooks on it.   scale: factor on the attention scores.   checkpoint: runs a function of tensors under gradient checkpointing, or None.
    """

    layer: nn.Module
    query: nn.Module
    key: nn.Module
    value: nn.Module
    dropout_probabilities: nn.Module
    attention_out: nn.Module
    dropout_attention: nn.Module
    norm_attention: nn.Module
    up: nn.Module
    activation: Callable[[Tensor], Tensor]
    activation_name: str | None
    down: nn.Module
    dropout_output: nn.Module
    norm_output: nn.Module
    heads: int
    head_dim: int
    scale: float
    checkpoint: Callable | None = None

    @property
    def drops_probabilities(self) -> bool:
        """Whether its own forward would drop attention probabilities now."""
        return self.dropout_probabilities.training and self.dropout_probabilities.p > 0

    @property
    def called(self) -> tuple[nn.Module, ...]:
        """The modules that run, by themselves or by what was made of them; those around them do not."""
        parts = (self.query, self.key, self.value, self.attention_out, self.norm_attention, self.up, self.activation, self.down)
        return tuple(part for part in (*parts, self.norm_output, *self.dropouts) if isinstance(part, nn.Module))

    @property
    def dropouts(self) -> tuple[nn.Module, ...]:
        """All dropout modules."""
        return self.dropout_probabilities, self.dropout_attention, self.dropout_output
