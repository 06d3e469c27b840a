"""Moving token rows: compaction, padded <-> packed, exit states."""

import torch


def compact(x, keep_idx, total):
    """out[i] = x[keep_idx[i]] for i < total."""
    return x.index_select(0, keep_idx[:total])


def compact_many(xs, keep_idx, total):
    """`compact` of several tensors by the same indices."""
    return [compact(x, keep_idx, total) for x in xs]


def pack_index(attention_mask):
    """token_idx, cu_seqlens and position of the live (non-zero) entries of a (B, L) mask."""
    live = attention_mask != 0
    counts = live.sum(dim=1, dtype=torch.int32)
    token_idx = live.flatten().nonzero().flatten().to(torch.int32)
    cu_seqlens = torch.cat([counts.new_zeros(1), counts.cumsum(0, dtype=torch.int32)])
    position = (live.cumsum(dim=1, dtype=torch.int32) - 1)[live]
    return token_idx, cu_seqlens, position


def pack(x, attention_mask):
    """Live rows of x (B, L, ...) as packed (T, ...), cu_seqlens, token_idx."""
    token_idx, cu_seqlens, _ = pack_index(attention_mask)
    return x.flatten(0, 1).index_select(0, token_idx), cu_seqlens, token_idx


def unpack(packed, token_idx, batch, length):
    """(B, L, ...) with row token_idx[i] = packed[i] and zeros elsewhere."""
    rows = packed.new_zeros(batch * length, *packed.shape[1:])
    return rows.index_copy(0, token_idx.long(), packed).unflatten(0, (batch, length))


def store_exits_(out, x, token_idx, keep_idx):
    """out[token_idx[i]] = x[i] for every row i that is not in keep_idx; in place."""
    leaves = torch.ones(x.shape[0], dtype=torch.bool, device=x.device)
    leaves[keep_idx] = False
    out[token_idx[leaves]] = x[leaves]
