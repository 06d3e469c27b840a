"""Copies of one model for several engines."""

import copy

import torch
from transformers import BertModel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def twin(model: BertModel, dtype: str) -> BertModel:
    """A copy whose modules may be changed. In the model's own dtype it shares the parameters, so that many fit."""
    if DTYPES[dtype] == model.dtype:
        return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
    return copy.deepcopy(model).to(DTYPES[dtype])
