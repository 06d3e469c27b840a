"""Token pruning for BERT-type encoders that turns saved FLOPs into saved time.

Everything but `PruningConfig` is imported on first use: `import tokprune_kernels` needs neither transformers, nor
triton, nor the compiled extension.
"""

from importlib import import_module
from pathlib import Path

from tokprune_kernels._auto import register_with_transformers
from tokprune_kernels._extras import EXTRAS, is_installed, needing
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

__all__ = ["PruningConfig", "__version__", "get_include", "get_library_dir", "get_torch_library", *_SUBMODULES]
if all(map(is_installed, EXTRAS["models"])):  # so that `from tokprune_kernels import *` gives what there is
    __all__ += _MODELS


def get_include() -> str:
    """Folder of the public C and C++ headers, for a compiler's -I."""
    return str(Path(__file__).parent / "include")


def get_library_dir() -> str:
    """Folder of the standalone C and C++ library, for a linker's -L."""
    return str(Path(__file__).parent / "lib")


def get_torch_library() -> str:
    """Path of the shared library of the torch ops, for what loads it by itself: it needs libtorch, no Python.

    `torch.ops.load_library(path)` in a process that runs exported programs without this package, dlopen or the linker in a C++ program.
    Raises FileNotFoundError if the compiled kernels were not built.
    """
    library = Path(__file__).parent / "_torch_ops.so"
    if not library.exists():
        raise FileNotFoundError(f"no {library}: build it with `pip install --no-build-isolation .` in a checkout of tokprune-kernels")
    return str(library)


def __getattr__(name):
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name in _MODELS or name.startswith("Pruned"):  # a class of any supported type, "Pruned" before its name in transformers
        with needing(f"{__name__}.{name}", EXTRAS["models"]):
            return getattr(import_module(f"{__name__}.models"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)


register_with_transformers()
