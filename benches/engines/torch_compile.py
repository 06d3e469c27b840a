"""torch.compile of Hugging Face's sdpa model: inductor with frozen weights and dynamic shapes.

- Freezing lets inductor prepack the weights for oneDNN. It is read from the global configuration while the graph is
  traced: given in torch.compile's `options` it comes too late and is silently off (measured at 8x128, fp32: 194 instead
  of 394 GFLOP/s). With static shapes fp32 weights go to MKL's packed format instead, half as fast on this machine.
- One model serves all shapes. Loading calls it at both kinds of graph that dynamic shapes leave (batch 1 is always
  special); a batch that needs one more compiles in the check before timing, as does any other first call.
- fullgraph: a graph break, or more recompiles than torch's limit, is an error and never a quiet return to eager mode.
- max_autotune chooses the same oneDNN linears nearly everywhere and compiles for minutes: off.
"""

import os
import shutil

import torch

from .engine import PEER, Engine
from .twins import twin

# (batch, length) whose row counts inductor packs the weights for, as a hint: a single text, and a batch.
TYPICAL_SHAPES = ((1, 128), (8, 128))


def load(model, dtype, threads, cache_folder):
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((cache_folder / "inductor").resolve()))
    own = twin(model, dtype)
    own.set_attn_implementation("sdpa")
    compiled = torch.compile(own, dynamic=True, fullgraph=True)

    def run(batch):
        # The patch is for whatever compiles in this call; the compiled code does not read it.
        with torch.inference_mode(), torch._inductor.config.patch(freezing=True):
            return compiled(**batch).last_hidden_state

    for shape in TYPICAL_SHAPES:
        ones = torch.ones(shape, dtype=torch.long)
        run({"input_ids": ones, "attention_mask": ones})
    return run


def absent():
    compiler = os.environ.get("CXX", "g++")
    return None if shutil.which(compiler) else f"needs a C++ compiler ({compiler} is not there; set CXX)"


ENGINE = Engine("torch_compile", PEER, ("fp32", "bf16"), load, absent=absent)
