"""What differs between model types: where the base model is, which modules a layer has, which heads read only [CLS]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from transformers import (
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
)
from transformers.activations import ACT2FN
from transformers.models.bert.modeling_bert import BertPooler

from ..layers.modules import LayerModules

# By type, since a checkpoint's activation may have been replaced after loading.
_ACTIVATION_NAMES = {
    type(ACT2FN["gelu"]): "gelu",
    type(ACT2FN["gelu_new"]): "gelu_tanh",
    type(ACT2FN["gelu_pytorch_tanh"]): "gelu_tanh",
    nn.ReLU: "relu",
}


@dataclass(frozen=True)
class Adapter:
    """How to prune one model type.

    base_class: the bare model, with `embeddings`, `encoder.layer` and `pooler`.
    layer_modules: the view of one of its layers.
    first_token_heads: heads that read nothing but the pooled first token.
    first_token_pooler: the pooler that makes it, from position 0 of what it is given.
    """

    base_class: type[PreTrainedModel]
    layer_modules: Callable[[nn.Module], LayerModules]
    first_token_heads: tuple[type[PreTrainedModel], ...]
    first_token_pooler: type[nn.Module]

    def reads_pooled_only(self, model: nn.Module) -> bool:
        """Whether a model is one of these heads, or a subclass that runs the same forward."""
        return any(type(model).forward is head.forward for head in self.first_token_heads)

    def pools_first_token(self, base: nn.Module) -> bool:
        """Whether the base model has this pooler, and not one that was put in its place and may read all positions."""
        return type(base.pooler) is self.first_token_pooler


def bert_layer_modules(layer: nn.Module) -> LayerModules:
    """The view of a transformers BertLayer."""
    attention, output = layer.attention.self, layer.attention.output
    activation = layer.intermediate.intermediate_act_fn
    return LayerModules(
        query=attention.query,
        key=attention.key,
        value=attention.value,
        dropout_probabilities=attention.dropout,
        attention_out=output.dense,
        dropout_attention=output.dropout,
        norm_attention=output.LayerNorm,
        up=layer.intermediate.dense,
        activation=activation,
        activation_name=_activation_name(activation),
        down=layer.output.dense,
        dropout_output=layer.output.dropout,
        norm_output=layer.output.LayerNorm,
        heads=attention.num_attention_heads,
        head_dim=attention.attention_head_size,
        scale=attention.attention_head_size**-0.5,
        checkpoint=_checkpoint(layer),
    )


_BERT = Adapter(
    base_class=BertModel,
    layer_modules=bert_layer_modules,
    first_token_heads=(BertForSequenceClassification, BertForMultipleChoice, BertForNextSentencePrediction),
    first_token_pooler=BertPooler,
)

ADAPTERS = {"bert": _BERT, "pruned_bert": _BERT}


def find_adapter(model: nn.Module) -> tuple[Adapter, nn.Module]:
    """The adapter of a loaded model and its base model inside; TypeError or ValueError with what is supported."""
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"model must be a transformers model, got {type(model).__name__}; of a wrapper give the model inside, for "
            "example peft_model.get_base_model()"
        )
    model_type = model.config.model_type
    adapter = ADAPTERS.get(model_type)
    base = getattr(model, model.base_model_prefix, model)
    if adapter is None or not isinstance(base, adapter.base_class):
        raise ValueError(
            f"{type(model).__name__} (model type {model_type!r}) cannot be pruned; supported model types: "
            f"{', '.join(sorted(ADAPTERS))}, with any of their heads"
        )
    if getattr(base.config, "is_decoder", False):
        raise ValueError("a decoder cannot be pruned: set config.is_decoder=False for an encoder")
    return adapter, base


def _activation_name(activation: Callable) -> str | None:
    if isinstance(activation, nn.GELU):
        return "gelu" if activation.approximate == "none" else "gelu_tanh"
    return _ACTIVATION_NAMES.get(type(activation))


def _checkpoint(layer: nn.Module) -> Callable | None:
    """transformers' gradient checkpointing function, where it is switched on."""
    if not (layer.training and getattr(layer, "gradient_checkpointing", False)):
        return None
    return layer._gradient_checkpointing_func
