"""The ops: `torch.ops.tokprune.*` behind functions with checks and docstrings.

Importing this package defines the ops and registers their kernels: the compiled ones, or the plain PyTorch reference with
one warning if they were not built.
"""

from . import schemas  # isort: skip  (the schemas must exist before anything binds an op)
from .attention import attn_importance, varlen_attention
from .autograd import register_gradients
from .decision import keep_threshold, keep_topk
from .encoder import encoder
from .gather import compact, compact_many, pack, pack_index, store_exits_, unpack
from .linear import pack_weight, packed_linear
from .norm import add_layer_norm
from .padded_encoder import padded_encoder
from .prune_attention import prune_attention
from .registration import register_kernels

__all__ = [
    "add_layer_norm",
    "attn_importance",
    "compact",
    "compact_many",
    "encoder",
    "keep_threshold",
    "keep_topk",
    "pack",
    "pack_index",
    "pack_weight",
    "packed_linear",
    "padded_encoder",
    "prune_attention",
    "store_exits_",
    "unpack",
    "varlen_attention",
]

register_kernels()
register_gradients()
