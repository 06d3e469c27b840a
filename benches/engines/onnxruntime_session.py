"""An ONNX Runtime session as an engine's run, and the settings all of its engines share."""

from pathlib import Path

import torch

from .onnx_export import INPUTS

PACKAGES = ("onnx", "onnxruntime")


def session_run(path: Path, threads: int):
    """Run the file on the CPU: all graph optimisations, numpy in and out, `threads` threads.

    The pool may spin while a call runs, as by default, and stops with it: else it would take the cores from whoever
    is measured next.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(batch):
        (hidden,) = session.run(None, {name: batch[name].numpy() for name in INPUTS})
        return torch.from_numpy(hidden)

    return run
