"""Linear layers whose weight was packed once into panels of 64 output columns."""

import torch
from torch.nn.functional import gelu, linear, pad, relu

PANEL_COLUMNS = 64

# Codes of the op's `activation` argument.
ACTIVATIONS = {"none": 0, "gelu": 1, "gelu_tanh": 2, "relu": 3}
# By their codes.
FUNCTIONS = (lambda x: x, gelu, lambda x: gelu(x, approximate="tanh"), relu)


def pack_weight(weight):
    """weight (N, K) as zero-padded panels: float32 (N/64, K, 64), bfloat16 (N/64, K/2, 64, 2), both divisions rounded up."""
    k_multiple = 2 if weight.dtype == torch.bfloat16 else 1
    out_features, in_features = weight.shape
    padded = pad(weight, (0, -in_features % k_multiple, 0, -out_features % PANEL_COLUMNS))
    if k_multiple == 1:
        return padded.unflatten(0, (-1, PANEL_COLUMNS)).transpose(1, 2).contiguous()
    panels = padded.unflatten(0, (-1, PANEL_COLUMNS)).unflatten(2, (-1, k_multiple))
    return panels.transpose(1, 2).contiguous()


def unpack_weight(packed, out_features, in_features):
    """The (N, K) weight that `pack_weight` packed."""
    columns = packed.transpose(1, 2)  # (panels, 64, K) or (panels, 64, K/2, 2)
    return columns.flatten(2).flatten(0, 1)[:out_features, :in_features]


def packed_linear(x, weight, bias, out_features, activation=0, rows=None):
    """activation(x[rows] W^T + bias), summed in float32 (float64 for float64); `activation` is a code of ACTIVATIONS, rows None = all."""
    if rows is not None:
        x = x.index_select(0, rows)
    plain = unpack_weight(weight, out_features, x.shape[1])
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    y = linear(x.to(wide), plain.to(wide), None if bias is None else bias.to(wide))
    return FUNCTIONS[activation](y).to(x.dtype)
