"""ONNX Runtime with the BERT fusions of onnxruntime.transformers, as its documentation recommends for BERT on CPUs.

Attention, EmbedLayerNormalization, SkipLayerNormalization and BiasGelu become one operator each. GELU stays exact: the
tanh approximation is no equal of what the others compute.
"""

import logging

from .engine import PEER, Engine
from .onnx_export import cached, exported
from .onnxruntime_session import PACKAGES, session_run


def fused(model, cache_folder):
    """The file with the fusions. Raises RuntimeError if an attention was not recognised: that is another engine."""

    def write(path):
        from onnxruntime.transformers import optimizer

        logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
        config = model.config
        optimised = optimizer.optimize_model(
            str(exported(model, cache_folder)),
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            opt_level=1,  # the session does the rest when it loads the file
            use_gpu=False,
        )
        attentions = optimised.get_fused_operator_statistics()["Attention"]
        if attentions != config.num_hidden_layers:
            raise RuntimeError(f"onnxruntime fused {attentions} attentions of {config.num_hidden_layers} layers")
        optimised.save_model_to_file(str(path))

    return cached(model, cache_folder, "fused", write)


def load(model, dtype, threads, cache_folder):
    return session_run(fused(model, cache_folder), threads)


# Its CPU kernels for these operators have no bf16.
ENGINE = Engine("onnxruntime", PEER, ("fp32",), load, PACKAGES)
