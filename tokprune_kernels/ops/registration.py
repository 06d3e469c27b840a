"""Which kernels run on which device.

CPU: the compiled extension registers its own kernels; without it the checked reference is registered here.
CUDA: the Triton kernels of `gpu`, imported when the first of them is called; without triton the checked reference, which says
so once. What only the CPU needs (linear layers on weights packed for it) is the reference there.
"""

import warnings
from importlib import import_module

import torch

from .. import reference
from .._extension import extension_status
from .._gpu import checks_elements, has_triton
from . import checks, data_checks, schemas

# op -> module of `gpu` that has its launcher
GPU_MODULES = {
    "attn_importance": "attention",
    "varlen_attention": "attention",
    "attn_importance_backward": "attention_backward",
    "keep_threshold": "decision",
    "keep_topk": "decision",
    "compact": "gather",
    "compact_many": "gather",
    "pack_index": "gather",
    "pack": "gather",
    "unpack": "gather",
    "store_exits_": "gather",
    "add_layer_norm": "norm",
    "prune_attention": "prune_attention",
}
_NO_TRITON = (
    "tokprune_kernels: triton is not installed, so its GPU kernels cannot run. The plain PyTorch reference runs on the GPU "
    "instead: same results, no speed-up. Install triton, or a build of PyTorch that brings it"
)
_CPU_ONLY = (
    "tokprune_kernels: weights packed for the CPU are used on a GPU. The plain PyTorch reference runs: same results, no "
    "speed-up. Use torch.nn.functional.linear there"
)


def register_kernels() -> None:
    """Make every op callable; raises ImportError if the extension was built from other sources."""
    _register_gpu()
    if not extension_status().loaded:
        register_reference("CPU", schemas.NAMES)
        return
    missing = [name for name in schemas.NAMES if name in schemas.DEFINED_HERE or not _has_kernel(name, "CPU")]
    if missing or schemas.differing():
        fault = f"lack {', '.join(missing)}" if missing else f"take other arguments for {', '.join(schemas.differing())}"
        raise ImportError(
            f"the compiled CPU kernels at {extension_status().path} {fault}: they were built from another version of the "
            "sources; rebuild them with `pip install --no-build-isolation .`"
        )


def register_reference(dispatch_key: str, names: list[str], warning: str | None = None) -> None:
    """Register the plain PyTorch reference, with all argument checks, for a dispatch key such as "CPU".

    warning: given once, when the first of these kernels runs.
    """
    pending = [warning] if warning else []
    for name in names:
        schemas.LIBRARY.impl(name, _checked(name, getattr(reference, name), pending), dispatch_key)


def _register_gpu() -> None:
    if not has_triton():
        register_reference("CUDA", schemas.NAMES, _NO_TRITON)
        return
    for name in GPU_MODULES:
        schemas.LIBRARY.impl(name, _checked(name, _launcher(name), [], checks_elements), "CUDA")
    register_reference("CUDA", [name for name in schemas.NAMES if name not in GPU_MODULES], _CPU_ONLY)


def _launcher(name: str):
    def launch(*args, **kwargs):
        return getattr(import_module(f"tokprune_kernels.gpu.{GPU_MODULES[name]}"), name)(*args, **kwargs)

    return launch


def _has_kernel(name: str, dispatch_key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"{schemas.NAMESPACE}::{name}", dispatch_key)


def _checked(name: str, run, pending: list[str], elements=lambda: True):
    """`run` behind the op's checks, those of elements where `elements()` says so; first the warning that is pending."""
    check, check_data = getattr(checks, name), getattr(data_checks, name, None)

    def kernel(*args, **kwargs):
        if pending:
            warnings.warn(pending.pop(), RuntimeWarning, stacklevel=2)
        check(*args, **kwargs)
        if check_data is not None and elements():
            check_data(*args, **kwargs)
        return run(*args, **kwargs)

    kernel.__name__ = kernel.__qualname__ = f"{run.__name__}_{name}"
    return kernel
