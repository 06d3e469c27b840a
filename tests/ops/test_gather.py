"""Row movement: refusals, and the round trips that the encoder relies on."""

import pytest
import torch

from tokprune_kernels import ops

from .samples import RAGGED, mask_of, randn

INT = torch.int32


def index(*values):
    return torch.tensor(values, dtype=INT)


def test_pack_and_unpack_undo_each_other():
    for left in (False, True):
        mask = mask_of(RAGGED, 133, left=left)
        x = randn(len(RAGGED), 133, 24) * mask.unsqueeze(-1)
        packed, cu_seqlens, token_idx = ops.pack(x, mask)
        assert cu_seqlens.diff().tolist() == list(RAGGED)
        assert torch.equal(ops.unpack(packed, token_idx, *mask.shape), x)


def test_positions_count_live_tokens_only():
    token_idx, cu_seqlens, position = ops.pack_index(torch.tensor([[0, 1, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0]]))
    assert token_idx.tolist() == [1, 3, 4, 5, 6]
    assert cu_seqlens.tolist() == [0, 2, 5, 5]
    assert position.tolist() == [0, 1, 0, 1, 2]


def test_exits_and_survivors_together_restore_every_row():
    x, token_idx, keep = randn(50, 16), torch.arange(0, 100, 2, dtype=INT), index(0, 3, 4, 48)
    out = torch.full((100, 16), float("nan"))
    ops.store_exits_(out, x, token_idx, keep)
    assert out[::2].isnan().any(dim=1).nonzero().flatten().tolist() == keep.tolist()
    ops.store_exits_(out, ops.compact(x, keep, 4), ops.compact(token_idx, keep, 4), index())
    assert torch.equal(out[::2], x) and out[1::2].isnan().all()


BAD = {
    "index too large": (lambda: ops.compact(randn(4, 2), index(0, 4), 2), "keep_idx"),
    "index negative": (lambda: ops.compact(randn(4, 2), index(-1), 1), "keep_idx"),
    "index dtype": (lambda: ops.compact(randn(4, 2), torch.tensor([0]), 1), "keep_idx"),
    "total too large": (lambda: ops.compact(randn(4, 2), index(0), 2), "total"),
    "total negative": (lambda: ops.compact(randn(4, 2), index(0), -1), "total"),
    "rows differ": (lambda: ops.compact_many([randn(4, 2), randn(3, 2)], index(0), 1), r"xs\[1\]"),
    "mask dims": (lambda: ops.pack_index(torch.ones(2, 3, 1)), "attention_mask"),
    "mask dtype": (lambda: ops.pack_index(torch.ones(2, 3, dtype=torch.float64)), "attention_mask"),
    "mask shape": (lambda: ops.pack(randn(2, 4, 8), torch.ones(2, 3)), "attention_mask"),
    "token_idx falls": (lambda: ops.unpack(randn(2, 4), index(3, 1), 1, 4), "token_idx"),
    "token_idx repeats": (lambda: ops.unpack(randn(2, 4), index(1, 1), 1, 4), "token_idx"),
    "token_idx outside": (lambda: ops.unpack(randn(2, 4), index(1, 4), 1, 4), "token_idx"),
    "token_idx size": (lambda: ops.unpack(randn(2, 4), index(1), 1, 4), "token_idx"),
    "exit outside": (lambda: ops.store_exits_(randn(3, 4), randn(2, 4), index(0, 3), index()), "token_idx"),
    "exit keep": (lambda: ops.store_exits_(randn(3, 4), randn(2, 4), index(0, 1), index(2)), "keep_idx"),
    "exit width": (lambda: ops.store_exits_(randn(3, 5), randn(2, 4), index(0, 1), index()), "out"),
    "exit dtype": (lambda: ops.store_exits_(randn(3, 4).bfloat16(), randn(2, 4), index(0, 1), index()), "out"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_names_the_argument(case):
    call, name = BAD[case]
    with pytest.raises((ValueError, TypeError), match=name):
        call()
