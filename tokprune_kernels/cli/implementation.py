"""Which implementation of the ops this process runs: compiled kernels, and for which ISA, or the reference."""

import importlib
import os
import warnings

from tokprune_kernels._gpu import TILES_VARIABLE, has_triton

from .errors import CliError

FORCE_VARIABLE = "TOKPRUNE_CPU_ISA"


def implementation() -> dict:
    """Return what runs the ops on this machine's CPU, as JSON types.

    summary: a few words. compiled: bool. detail, path: what the extension's loader says.
    ops: op -> "compiled" | "reference", on CPU tensors. gpu: what runs on GPU tensors, in a few words. core: what the torch-free module `_core` says (`core_status`).
    Raises CliError where a built extension cannot be loaded.
    """
    from tokprune_kernels._extension import extension_status

    try:
        with warnings.catch_warnings():  # the reports print the same sentence, in their own place
            warnings.simplefilter("ignore", RuntimeWarning)
            status = extension_status()
            from tokprune_kernels.ops import schemas  # registers the kernels: a stale build is found out here
    except (ImportError, ValueError) as error:
        raise CliError(str(error)) from error
    runs, core = "compiled" if status.loaded else "reference", core_status()
    isa = f", {core['active_isa']}" if core["available"] else ""
    return {
        "summary": f"{runs}{isa}" if status.loaded else status.detail,
        "compiled": status.loaded,
        "detail": status.detail,
        "path": status.path,
        # On CPU tensors: all of them or none, the loader sees to that.
        "ops": dict.fromkeys(sorted(schemas.NAMES), runs),
        "gpu": _gpu_kernels(),
        "core": core,
    }


def _gpu_kernels() -> str:
    if not has_triton():
        return "reference: triton is not installed"
    tiles = os.environ.get(TILES_VARIABLE)
    return f"Triton, tiles of {tiles}" if tiles else "Triton, shipped tiles"


def core_status() -> dict:
    """Return what the torch-free module `_core` knows of the CPU and its own ISAs; works where it was not built."""
    try:
        core = importlib.import_module("tokprune_kernels._core")
    except ImportError as error:
        return {"available": False, "reason": str(error)}
    try:
        active = core.active_isa()
    except (RuntimeError, ValueError) as error:  # an unknown or impossible TOKPRUNE_CPU_ISA
        raise CliError(str(error)) from error
    return {
        "available": True,
        "active_isa": active,
        "available_isas": list(core.available_isas()),
        "cpu_features": {name: bool(value) for name, value in core.cpu_features().items()},
        "versions": {name: str(value) for name, value in core.versions().items()},
    }
