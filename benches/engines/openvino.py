"""OpenVINO's CPU plugin on the sdpa model, converted straight from PyTorch, with dynamic batch and length.

One stream with all threads, which is the latency hint's meaning. The precision hint is always given: without one the
plugin runs bf16 wherever the CPU can. Threads are not tied to cores: that measured the same or slightly faster, and the
plugin then leaves the affinity of the other engines' threads alone.
"""

import warnings

import torch

from .engine import PEER, Engine
from .twins import twin

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


def load(model, dtype, threads, cache_folder):
    import openvino

    own = twin(model, "fp32")  # the plugin converts the weights to the hint's precision itself
    own.set_attn_implementation("sdpa")
    example = torch.ones(2, 8, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about Python branches on shapes: the outputs are checked
        converted = openvino.convert_model(own, example_input={"input_ids": example, "attention_mask": example})
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
        "ENABLE_CPU_PINNING": False,
    }
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    request = compiled.create_infer_request()
    hidden = compiled.output("last_hidden_state")

    def run(batch):
        inputs = {name: value.numpy() for name, value in batch.items()}
        results = request.infer(inputs, share_inputs=True, share_outputs=False)
        return torch.from_numpy(results[hidden])

    return run


ENGINE = Engine("openvino", PEER, ("fp32", "bf16"), load, ("openvino",))
