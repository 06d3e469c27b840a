"""A whole pruned encoder on a padded batch: packed at the start, restored at the end."""

from .encoder import PLACED, encoder
from .gather import pack

# Codes of the op's `denominator` argument; a positive one is the number itself.
DENOMINATORS = {"kept": 0, "sqrt_kept": -1, "initial": -2}


def padded_encoder(
    x,
    attention_mask,
    weights,
    eps,
    heads,
    activation,
    scale,
    keep,
    topk,
    before_layer,
    denominator=0,
    protected=None,
    protect_first=True,
    readout=0,
    count_first=True,
):
    """`encoder` of the live rows of x (B, L, H): (B, L, H) with zeros at padding, or (B, H), each text's first token."""
    rows, cu_seqlens, token_idx = pack(x, attention_mask)
    lengths = cu_seqlens.diff()
    longest = int(lengths.max()) if len(lengths) else 0
    denominators = None
    if denominator == DENOMINATORS["initial"]:
        denominators = lengths.clamp(min=1).float()  # an empty text has no scores, but its number must be positive
    elif denominator > 0:
        denominators = lengths.new_full(lengths.shape, denominator).float()
    restores = readout in PLACED
    out = encoder(
        rows,
        cu_seqlens,
        longest,
        weights,
        eps,
        heads,
        activation,
        scale,
        keep,
        topk,
        before_layer,
        denominators,
        None if protected is None else protected.flatten()[token_idx],
        protect_first,
        readout,
        token_idx if restores else None,
        x.shape[0] * x.shape[1],
        denominator == DENOMINATORS["sqrt_kept"],
        count_first,
    )
    return out.view(x.shape) if restores else out
