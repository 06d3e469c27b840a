"""LTP's soft stage as the papers' code runs it: Hugging Face's eager layers on a padded batch, with their attention maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tokprune_train.pruners.ltp import LearnedThresholds


class EagerLTP(nn.Module):
    """The loss of tokprune_train's Student with a LearnedThresholds pruner, computed the papers' way.

    model: BertForSequenceClassification with attn_implementation="eager"; its own modules are called in its own order.
    pruner: holds thresholds, temperature and lambda, and how its masks act. What it does with them is done here again, on
    attention maps; masks="attention" is no paper's and serves to check ours. score_denominator must be "kept".

    It is not made slow: heads are averaged before rows are masked, so that importance makes no copy of the maps (batch,
    heads, length, length), and the padding mask is one row in the precision of the scores, which it leaves as it is.
    """

    def __init__(self, model: nn.Module, pruner: LearnedThresholds):
        super().__init__()
        self.model, self.pruner = model, pruner

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """{"loss": scalar, "logits": (B, C)} of a padded batch."""
        bert, pruner = self.model.base_model, self.pruner
        in_attention = pruner.masks == "attention"
        temperature, live = pruner.temperature * pruner.unit, attention_mask.float()
        hidden = bert.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
        bias = padding = padding_bias(attention_mask)
        rows, kept = live, []
        for index, layer in enumerate(bert.encoder.layer):
            context, maps = layer.attention.self(hidden, attention_mask=bias)
            hidden = layer.feed_forward_chunk(layer.attention.output(context, hidden))
            received = (maps.mean(1, dtype=torch.float32) * rows[:, :, None]).sum(1)
            mask = torch.sigmoid((received / rows.sum(1, keepdim=True) - pruner.thresholds[index]) / temperature)
            mask = torch.cat([torch.ones_like(mask[:, :1]), mask[:, 1:]], dim=1)
            if in_attention:
                rows = rows * mask
                weight = rows.clamp(min=1e-12).log().masked_fill(attention_mask == 0, 0)[:, None, None, :]
                bias = weight if padding is None else weight + padding
                kept.append(rows)
            else:
                hidden = hidden * mask[..., None].to(hidden.dtype)
                kept.append(mask * live)
        logits = self.model.classifier(bert.pooler(hidden))
        shares = torch.stack(kept).sum(2) / live.sum(1)  # (layers, B)
        loss = nn.functional.cross_entropy(logits.float(), labels) + pruner.regularizer * shares.mean(1).sum()
        return {"loss": loss, "logits": logits}


def padding_bias(attention_mask: Tensor) -> Tensor | None:
    """(B, 1, 1, L) to add to the scores; None where nothing is padded."""
    if bool((attention_mask != 0).all()):
        return None
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    return torch.zeros(attention_mask.shape, dtype=dtype).masked_fill(attention_mask == 0, torch.finfo(dtype).min)[:, None, None]
