"""ONNX Runtime on the plain export: only the optimisations that a session does by itself.

A few per cent faster than the BERT fusions on this project's machine, except for very short texts; so both are peers.
"""

from .engine import PEER, Engine
from .onnx_export import exported
from .onnxruntime_session import PACKAGES, session_run


def load(model, dtype, threads, cache_folder):
    return session_run(exported(model, cache_folder), threads)


# Its CPU kernels for these operators have no bf16.
ENGINE = Engine("onnxruntime_plain", PEER, ("fp32",), load, PACKAGES)
