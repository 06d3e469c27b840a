"""Which kernels run on which device.

CPU: the compiled extension registers its own kernels; without it the checked reference is registered here.
CUDA: the checked reference, which says so once.
"""

import warnings

import torch

from .. import reference
from .._extension import extension_status
from . import checks, data_checks, schemas

_NO_CUDA_KERNELS = (
    "tokprune_kernels: this version has no CUDA kernels. The plain PyTorch reference runs on the GPU instead: same results, "
    "no speed-up"
)


def register_kernels() -> None:
    """Make every op callable; raises ImportError if the extension was built without some of them."""
    register_reference("CUDA", warning=_NO_CUDA_KERNELS)
    if not extension_status().loaded:
        register_reference("CPU")
        return
    missing = [name for name in schemas.NAMES if not _has_kernel(name, "CPU")]
    if missing:
        raise ImportError(
            f"the compiled CPU kernels at {extension_status().path} lack {', '.join(missing)}: they were built from "
            "another version of the sources; rebuild them with `pip install --no-build-isolation .`"
        )


def register_reference(dispatch_key: str, warning: str | None = None) -> None:
    """Register the plain PyTorch reference, with all argument checks, for a dispatch key such as "CPU".

    warning: given once, when the first of these kernels runs.
    """
    pending = [warning] if warning else []
    for name in schemas.NAMES:
        schemas.LIBRARY.impl(name, _checked(name, pending), dispatch_key)


def _has_kernel(name: str, dispatch_key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"{schemas.NAMESPACE}::{name}", dispatch_key)


def _checked(name: str, pending: list[str]):
    check, check_data = getattr(checks, name), getattr(data_checks, name, None)
    run = getattr(reference, name)

    def kernel(*args, **kwargs):
        if pending:
            warnings.warn(pending.pop(), RuntimeWarning, stacklevel=2)
        check(*args, **kwargs)
        if check_data is not None:
            check_data(*args, **kwargs)
        return run(*args, **kwargs)

    kernel.__name__ = kernel.__qualname__ = f"reference_{name}"
    return kernel
