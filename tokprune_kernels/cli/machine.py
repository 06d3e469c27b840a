"""The machine stamp: what a measured number needs beside it to mean anything."""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

# What our kernels can use; the rest of a modern CPU's hundred flags only makes the stamp hard to read.
_FEATURES = (
    "sse4_2",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512dq",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
    "sve",
    "sve2",
    "i8mm",
)
_PACKAGES = ("torch", "transformers", "triton", "numpy")
_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "KMP_AFFINITY",
    "GOMP_CPU_AFFINITY",
    "TOKPRUNE_CPU_ISA",
    "CUDA_VISIBLE_DEVICES",
    "TOKPRUNE_GPU_CHECKS",
    "TOKPRUNE_GPU_TILES",
)


def machine_stamp() -> dict:
    """Return what this process runs on, as JSON types: date, versions, CPU, threads, load, GPU, variables.

    Take it before the work that is measured, so that its load is that of others. Names neither the host nor the user.
    Packages that are missing are None.
    """
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {"tokprune-kernels": _own_version()} | {name: installed_version(name) for name in _PACKAGES},
        "cpu": cpu(),
        "threads": _threads(),
        "load": _load(),
        "gpu": _gpus(),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def installed_version(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None; the package itself is not imported."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu() -> dict:
    """Return the CPU's model, architecture, cores this process may use, and the features that kernels care about."""
    model, flags = _proc_cpuinfo()
    return {
        "model": model or _sysctl("machdep.cpu.brand_string") or platform.processor() or "unknown",
        "architecture": platform.machine(),
        "cores": cores(),
        "features": [feature for feature in _FEATURES if feature in flags],
    }


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _proc_cpuinfo() -> tuple[str | None, set[str]]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None, set()
    model = re.search(r"^(?:model name|Model|CPU part)\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return model and model.group(1).strip(), set(flags.group(1).split()) if flags else set()


def _sysctl(name: str) -> str | None:
    if platform.system() != "Darwin":
        return None
    done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _own_version() -> str:
    from .._version import __version__

    return __version__


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _load() -> float | None:
    """Return the mean number of processes that wanted to run over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
