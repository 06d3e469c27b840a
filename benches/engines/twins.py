"""Copies of one model for several engines."""

import copy

import torch
from transformers import BertModel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@torch.inference_mode(False)  # whoever loads the engine: what inference mode makes cannot be packed and checked
def own_copy(model: BertModel, dtype: str) -> BertModel:
    """A copy with parameters of its own, which may be changed or given up."""
    return copy.deepcopy(model).to(DTYPES[dtype])


def twin(model: BertModel, dtype: str) -> BertModel:
    """A copy whose modules may be changed. In the model's own dtype it shares the parameters, so that many fit."""
    if DTYPES[dtype] == model.dtype:
        return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
    return own_copy(model, dtype)
