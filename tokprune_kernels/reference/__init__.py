"""Every op in plain PyTorch: the definition the kernels are tested against, and what runs where there are no kernels.

Functions have the names and arguments of the ops, take any floating dtype (float64 too), are differentiable where that
has a meaning, run on any device and check nothing: `tokprune_kernels.ops` does.
"""

from .attention import attn_importance, attn_importance_backward, varlen_attention
from .decision import keep_threshold, keep_topk
from .encoder import encoder
from .gather import compact, compact_many, pack, pack_index, store_exits_, unpack
from .linear import pack_weight, packed_linear
from .norm import add_layer_norm
from .padded_encoder import padded_encoder
from .prune_attention import prune_attention

__all__ = [
    "add_layer_norm",
    "attn_importance",
    "attn_importance_backward",
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
