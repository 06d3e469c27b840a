"""What differs between model types: where the base model is, which modules a layer has, which heads read only [CLS]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

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

    base_class: the bare model, with `embeddings` and mostly `pooler`.   encoder_name: of what has its layers in `layer`.
    layer_modules: the view of one of its layers.
    pooler: what makes the pooled output, from position 0 of what it is given; None where the type has none.
    pooled_heads: heads that read nothing but that.
    first_heads: heads that read nothing but position 0 of the last states, by a `classifier` of the type first_reader, or by
        themselves where that is None.
    """

    base_class: type[PreTrainedModel]
    encoder_name: str
    layer_modules: Callable[[nn.Module], LayerModules]
    pooler: type[nn.Module] | None
    pooled_heads: tuple[type[PreTrainedModel], ...]
    first_heads: tuple[type[PreTrainedModel], ...]
    first_reader: type[nn.Module] | None

    def may_read_first_only(self, model: nn.Module) -> bool:
        """Whether a model is a head that reads its first tokens only, or a subclass that runs the same forward."""
        return _runs_one_of(model, self.pooled_heads + self.first_heads)

    def reads_first_only(self, model: nn.Module) -> bool:
        """Whether such a model does so now: what reads may have been put in the place of what read, and may read all positions."""
        if _runs_one_of(model, self.first_heads):
            return self.first_reader is None or type(model.classifier) is self.first_reader
        return self.pools_first_token(getattr(model, model.base_model_prefix))

    def pools_first_token(self, base: nn.Module) -> bool:
        """Whether the base model has its type's pooler."""
        return self.pooler is not None and type(base.pooler) is self.pooler

    def encoder(self, base: nn.Module) -> nn.Module:
        """The base model's encoder."""
        return getattr(base, self.encoder_name)


def _runs_one_of(model: nn.Module, heads: tuple[type[PreTrainedModel], ...]) -> bool:
    return any(type(model).forward is head.forward for head in heads)


def bert_layer_modules(layer: nn.Module) -> LayerModules:
    """The view of a transformers BertLayer."""
    attention, output = layer.attention.self, layer.attention.output
    activation = layer.intermediate.intermediate_act_fn
    return LayerModules(
        layer=layer,
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


def distilbert_layer_modules(layer: nn.Module) -> LayerModules:
    """The view of a transformers DistilBERT TransformerBlock."""
    attention, ffn = layer.attention, layer.ffn
    return LayerModules(
        layer=layer,
        query=attention.q_lin,
        key=attention.k_lin,
        value=attention.v_lin,
        dropout_probabilities=attention.dropout,
        attention_out=attention.out_lin,
        dropout_attention=_NONE_DROPPED,
        norm_attention=layer.sa_layer_norm,
        up=ffn.lin1,
        activation=ffn.activation,
        activation_name=_activation_name(ffn.activation),
        down=ffn.lin2,
        dropout_output=ffn.dropout,
        norm_output=layer.output_layer_norm,
        heads=attention.n_heads,
        head_dim=attention.attention_head_size,
        scale=attention.attention_head_size**-0.5,
        checkpoint=_checkpoint(layer),
    )


_NONE_DROPPED = nn.Dropout(0.0).eval()


@dataclass(frozen=True)
class Kind:
    """A model type, by names.

    module: below transformers.models.   prefix: of its classes.   pooled, first: what follows it and "For" in the names of
    pooled_heads and first_heads.   reader: what follows it in the name of first_reader.   after_padding: positions count from
    pad_token_id + 1, not from 0.   encoder, layers: see Adapter's encoder_name, layer_modules.
    """

    module: str
    prefix: str
    pooled: tuple[str, ...] = ("MultipleChoice",)
    first: tuple[str, ...] = ("SequenceClassification",)
    reader: str | None = "ClassificationHead"
    after_padding: bool = False
    encoder: str = "encoder"
    layers: Callable[[nn.Module], LayerModules] = bert_layer_modules

    def adapter(self) -> Adapter:
        """With the classes themselves, which are imported for it."""
        classes = import_module(f"transformers.models.{self.module}")

        def named(suffix: str) -> Any:
            return getattr(classes, self.prefix + suffix)

        return Adapter(
            base_class=named("Model"),
            encoder_name=self.encoder,
            layer_modules=self.layers,
            pooler=named("Pooler") if self.pooled else None,
            pooled_heads=tuple(named(f"For{head}") for head in self.pooled),
            first_heads=tuple(named(f"For{head}") for head in self.first),
            first_reader=named(self.reader) if self.first and self.reader else None,
        )


_POOLED = {"pooled": ("SequenceClassification", "MultipleChoice", "NextSentencePrediction"), "first": ()}
KINDS = {
    "bert": Kind("bert.modeling_bert", "Bert", **_POOLED),
    "camembert": Kind("camembert.modeling_camembert", "Camembert", after_padding=True),
    "data2vec-text": Kind("data2vec.modeling_data2vec_text", "Data2VecText", after_padding=True),
    "distilbert": Kind(
        "distilbert.modeling_distilbert",
        "DistilBert",
        pooled=(),
        first=("SequenceClassification", "MultipleChoice"),
        reader=None,
        encoder="transformer",
        layers=distilbert_layer_modules,
    ),
    "electra": Kind("electra.modeling_electra", "Electra", pooled=()),
    "ernie": Kind("ernie.modeling_ernie", "Ernie", **_POOLED),
    "roberta": Kind("roberta.modeling_roberta", "Roberta", after_padding=True),
    "xlm-roberta": Kind("xlm_roberta.modeling_xlm_roberta", "XLMRoberta", after_padding=True),
}


# By the base model's class, which other model types have inside as well (DPR has a BertModel).
_BY_CLASS = {(f"transformers.models.{kind.module}", f"{kind.prefix}Model"): kind for kind in KINDS.values()}


@cache
def adapter_of(base_class: type) -> Adapter | None:
    """The adapter of a base model's class, or None for one that cannot be pruned."""
    kind = _kind_of(base_class)
    return None if kind is None else kind.adapter()


def _kind_of(base_class: type) -> Kind | None:
    names = ((cls.__module__, cls.__qualname__) for cls in base_class.__mro__)
    return next((_BY_CLASS[name] for name in names if name in _BY_CLASS), None)


def encoder_of(base: nn.Module) -> nn.Module:
    """The encoder of a base model of a type that can be pruned. Nothing is imported for it: this runs inside forward, also a traced one."""
    return getattr(base, _kind_of(type(base)).encoder)


def first_position(config: Any) -> int:
    """The position that the first token of a text has."""
    kind = KINDS.get(config.model_type)
    return config.pad_token_id + 1 if kind is not None and kind.after_padding else 0


def longest_text(config: Any) -> int:
    """Tokens of the longest text that there are positions for."""
    return config.max_position_embeddings - first_position(config)


def find_adapter(model: nn.Module) -> tuple[Adapter, PreTrainedModel]:
    """The adapter of a loaded model and its base model inside; TypeError or ValueError with what is supported."""
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model must be a transformers model, got {type(model).__name__}")
    base, adapter = model, adapter_of(type(model))
    while adapter is None:
        inner = getattr(base, base.base_model_prefix, None) if base.base_model_prefix else None
        if not isinstance(inner, PreTrainedModel) or inner is base:
            raise ValueError(
                f"{type(model).__name__} (model type {model.config.model_type!r}) cannot be pruned; supported model types: "
                f"{', '.join(sorted(KINDS))}, with any of their heads"
            )
        base, adapter = inner, adapter_of(type(inner))
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
