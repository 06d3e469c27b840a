"""Checkpoints of LTP's official code (Kim et al., KDD 2022): RoBERTa in I-BERT's form, with a learned threshold in every layer.

Their `ibert.*` tensors are RoBERTa's under another name. Beside them stand what I-BERT needs to quantise, which is of no use to a
model that is not quantised, and each layer's learned difference to a line of thresholds that config.json describes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import RobertaConfig

import tokprune_kernels as tk

from .checkpoint import Imported, build, configuration, head_of, read_config, read_weights

MODEL_TYPES = ("ltp",)
# What I-BERT keeps beside its weights.
_QUANTISATION = (
    "weight_integer", "bias_integer", "weight_scaling_factor", "fc_scaling_factor", "act_scaling_factor", "x_min", "x_max", "shift",
)  # fmt: skip
_THRESHOLD = re.compile(r"encoder\.layer\.(\d+)\.attention\.self\.pruner\.keep_threshold$")
# Fields of config.json that are no RoBERTa's.
_OWN_FIELDS = (
    "architectures", "model_type", "quant_mode", "force_dequant", "prune_mode", "prune_kwargs", "scoring_mode", "token_keep_rate",
    "token_threshold", "final_token_threshold", "max_seq_length", "position_embedding_type",
)  # fmt: skip
# The lowest threshold that the official code prunes with.
LOWEST = 1e-5


def import_ltp(folder: str | Path, max_length: int | None = None) -> Imported:
    """The model of a folder that LTP's official code saved, pruned by what it learned.

    Its importance is a mean over the padded length, which is the score denominator here. [CLS] stays, whatever its score: the
    official code may let go of it, and its head then reads a state that attention no longer adds to.

    max_length: the length that its texts were padded to (its `--max_seq_length`, 128 in the paper); None: what config.json says as
    `max_seq_length`.

    Raises ValueError for a folder that is no such checkpoint, or not a whole one.
    """
    fields = read_config(folder)
    _check(fields)
    prefix, head = head_of(fields.get("architectures"), ("LTP",))
    config = configuration(folder, "roberta", {name: value for name, value in fields.items() if name not in _OWN_FIELDS})
    denominator = _padded_length(fields, max_length, config)
    weights = read_weights(folder)
    quantisation = [name for name in weights if name.rpartition(".")[2] in _QUANTISATION]
    learned = {int(found[1]): weights[name] for name in weights if (found := _THRESHOLD.search(name))}
    own = {
        re.sub(r"^ibert\.", "roberta." if head != "Model" else "", name): value
        for name, value in weights.items()
        if name not in quantisation and not _THRESHOLD.search(name)
    }
    model = build(f"Roberta{head}", config, own)
    pruning = tk.PruningConfig.ltp(
        thresholds(_final_threshold(fields), learned, config.num_hidden_layers), score_denominator=denominator
    )
    return Imported(tk.prune_model(model, pruning), tuple(quantisation))


def thresholds(final: float, learned: dict[int, Tensor], num_layers: int) -> list[float]:
    """theta_l = max(1e-5, final * l / num_layers + learned_l), l from 0, in float32 as the official code adds them; 0, where nothing is
    pruned, where that sum is 0 exactly.

    learned: layer -> scalar tensor. Raises ValueError unless there is one for each layer.
    """
    if sorted(learned) != list(range(num_layers)):
        missing = sorted(set(range(num_layers)) - set(learned))
        raise ValueError(
            f"the checkpoint needs a tensor encoder.layer.N.attention.self.pruner.keep_threshold for each of its {num_layers} layers; "
            f"it has them for {sorted(learned) or 'none'}" + (f", not for {missing}" if missing else "")
        )
    for layer, value in learned.items():
        if value.numel() != 1:
            raise ValueError(f"the keep_threshold of layer {layer} must be one number, got a tensor of shape {tuple(value.shape)}")
    sums = [float(torch.tensor(final * layer / num_layers) + learned[layer].float().reshape(())) for layer in range(num_layers)]
    return [0.0 if total == 0 else max(LOWEST, total) for total in sums]


def _check(fields: dict[str, Any]) -> None:
    if fields.get("model_type") not in MODEL_TYPES:
        raise ValueError(f"model_type in config.json must be 'ltp' for a checkpoint of LTP's official code, got {fields.get('model_type')!r}")
    if fields.get("prune_mode") != "absolute_threshold":
        raise ValueError(
            f"prune_mode in config.json must be 'absolute_threshold', LTP's own; got {fields.get('prune_mode')!r}, a baseline that this "
            "package trains by itself (`tokprune train topk`)"
        )
    if fields.get("quant_mode"):
        raise ValueError("quant_mode in config.json is true: a quantised model's weights cannot be imported, only float ones")
    if fields.get("scoring_mode", "mean") != "mean":
        raise ValueError(f"scoring_mode in config.json must be 'mean', importance over the padded length; got {fields['scoring_mode']!r}")
    if fields.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"position_embedding_type in config.json must be 'absolute', got {fields['position_embedding_type']!r}")


def _final_threshold(fields: dict[str, Any]) -> float:
    final = fields.get("final_token_threshold", (fields.get("prune_kwargs") or {}).get("final_token_threshold"))
    if isinstance(final, bool) or not isinstance(final, (int, float)):
        raise ValueError(f"final_token_threshold in config.json must be a number, where the line of thresholds ends; got {final!r}")
    return float(final)


def _padded_length(fields: dict[str, Any], given: int | None, config: RobertaConfig) -> int:
    length = fields.get("max_seq_length") if given is None else given
    if length is None:
        raise ValueError(
            "the thresholds hang on the length that texts were padded to, and config.json does not say it: give --max-length "
            "(the official training's --max_seq_length, 128 in the paper)"
        )
    most = config.max_position_embeddings - config.pad_token_id - 1
    if isinstance(length, bool) or not isinstance(length, int) or not 0 < length <= most:
        raise ValueError(f"max_length must be a number of tokens that the model has positions for, 1 to {most}, got {length!r}")
    return length
