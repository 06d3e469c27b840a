"""The configuration of a pruned BERT: BERT's own, and how it is pruned."""

from __future__ import annotations

from typing import Any

from transformers import BertConfig

from ..pruning_config import PruningConfig


class PrunedBertConfig(BertConfig):
    """A transformers BertConfig with the field `pruning`: what PruningConfig.to_dict() gives, or None (dense).

    A PruningConfig given for it, to the constructor or to from_pretrained, is turned into that dict.
    Reads the configuration of an ordinary BERT checkpoint as well.
    """

    model_type = "pruned_bert"
    pruning: dict | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "pruning" and isinstance(value, PruningConfig):
            value = value.to_dict()
        super().__setattr__(name, value)

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """As the parent's; an ordinary BERT checkpoint is one that is not pruned yet, not a mistake to warn of."""
        values, unused = super().get_config_dict(*args, **kwargs)
        if values.get("model_type") == BertConfig.model_type:
            values["model_type"] = cls.model_type
        return values, unused
