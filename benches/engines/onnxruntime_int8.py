"""ONNX Runtime, fused, with dynamically quantised linear layers (int8 weights per channel): for information.

Not a peer at fp32: its error is that of 8 bits, which is reported and not judged.
"""

import logging

from .engine import LOW_PRECISION, Engine
from .onnx_export import cached
from .onnxruntime import fused
from .onnxruntime_session import PACKAGES, session_run


def quantised(model, cache_folder):
    """The fused file with int8 weights."""

    def write(path):
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        logging.disable(logging.WARNING)  # it asks on the root logger for a preprocessing that the fusions have done
        try:
            quantize_dynamic(
                str(fused(model, cache_folder)),
                str(path),
                weight_type=QuantType.QInt8,
                per_channel=True,
                # The fused operators are onnxruntime's own, so shape inference cannot tell the types after them.
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
            )
        finally:
            logging.disable(logging.NOTSET)

    return cached(model, cache_folder, "int8", write)


def load(model, dtype, threads, cache_folder):
    return session_run(quantised(model, cache_folder), threads)


ENGINE = Engine("onnxruntime_int8", LOW_PRECISION, ("fp32",), load, PACKAGES)
