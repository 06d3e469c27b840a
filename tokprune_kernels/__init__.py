"""Token pruning for BERT-type encoders that turns saved FLOPs into saved time.

Everything but `PruningConfig` is imported on first use: `import tokprune_kernels` needs neither transformers, nor
triton, nor the compiled extension. `torch.ops.tokprune` is there at once; its ops are defined when the first one is asked for.
"""

from importlib import import_module
from pathlib import Path

from tokprune_kernels._auto import register_with_transformers
from tokprune_kernels._lazy_ops import announce_ops
from tokprune_kernels._version import __version__
from tokprune_kernels.pruning_config import PruningConfig

_SUBMODULES = ("flops", "ops", "packing", "reference")
_MODELS = (
    "PrunedBertConfig",
    "PrunedBertForQuestionAnswering",
    "PrunedBertForSequenceClassification",
    "PrunedBertForTokenClassification",
    "PrunedBertModel",
    "from_pretrained",
    "prune_model",
)

__all__ = ["PruningConfig", "__version__", "get_include", "get_library_dir", *_SUBMODULES, *_MODELS]


def get_include() -> str:
    """Folder of the public C and C++ headers, for a compiler's -I."""
    return str(Path(__file__).parent / "include")


def get_library_dir() -> str:
    """Folder of the standalone C and C++ library, for a linker's -L."""
    return str(Path(__file__).parent / "lib")


def __getattr__(name):
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name in _MODELS or name.startswith("Pruned"):  # a class of any supported type, "Pruned" before its name in transformers
        return getattr(import_module(f"{__name__}.models"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)


register_with_transformers()
announce_ops()
