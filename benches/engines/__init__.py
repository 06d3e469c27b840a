"""The engines that run the same BERT: one module each, named as the engine.

An engine loads an ordinary fp32 `BertModel` once and gives a function from a batch to the last hidden states,
(B, L, H). Adding one is adding a module with an `ENGINE` and its name to NAMES, in the order in which tables show it.
"""

from importlib import import_module

from .engine import Engine

NAMES = (
    "hf_eager",
    "hf_sdpa",
    "torch_compile",
    "onnxruntime",
    "onnxruntime_plain",
    "openvino",
    "onnxruntime_int8",
    "ours_dense",
    "ours_exact_cls",
    "ours_top",
    "ours_ltp",
    "ours_top_8x",
)


def find(name: str) -> Engine:
    """The engine of that name; its packages are imported only when it loads. Raises ValueError for an unknown name."""
    if name not in NAMES:
        raise ValueError(f"unknown engine {name!r}; known: {', '.join(NAMES)}")
    return import_module(f"{__name__}.{name}").ENGINE


def all_engines() -> list[Engine]:
    return [find(name) for name in NAMES]
