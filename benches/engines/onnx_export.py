"""ONNX files of a model, kept in a folder until the model or a package changes."""

import hashlib
import importlib.metadata
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import BertModel

from .twins import twin

PACKAGES = ("torch", "transformers", "onnx", "onnxruntime")
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "last_hidden_state"


def cached(model: BertModel, folder: Path, kind: str, write: Callable[[Path], None]) -> Path:
    """The file `kind` of this model, made by `write` if this model with these packages has none yet."""
    path = folder / f"bert-{_key(model)}.{kind}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{os.getpid()}.{path.name}"
        write(partial)
        partial.rename(path)  # at once, so that a run that was stopped leaves no half file behind
    return path


def exported(model: BertModel, folder: Path) -> Path:
    """The plain export, with batch and length dynamic.

    Eager attention and the tracing exporter: the graph that onnxruntime's BERT fusions recognise (of an sdpa model, or
    from the newer exporter, they leave the attention unfused).
    """
    return cached(model, folder, "plain", lambda path: _export(model, path))


class _LastHiddenState(torch.nn.Module):
    def __init__(self, model: BertModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def _export(model: BertModel, path: Path) -> None:
    own = twin(model, "fp32")
    own.set_attn_implementation("eager")
    example = torch.ones(2, 8, dtype=torch.long)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about Python branches on shapes: the outputs are checked
        torch.onnx.export(
            _LastHiddenState(own).eval(),
            (example, example),
            str(path),
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in (*INPUTS, OUTPUT)},
            opset_version=17,
            dynamo=False,
        )


def _key(model: BertModel) -> str:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    digest = hashlib.sha256(json.dumps([versions, model.config.to_dict()], sort_keys=True, default=str).encode())
    for name, weight in model.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.contiguous().numpy().data)
    return digest.hexdigest()[:16]
