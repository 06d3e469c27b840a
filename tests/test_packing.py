"""PackedBatch: the description of a padded batch as a packed one."""

import pytest
import torch

from tokprune_kernels.packing import PackedBatch, first_rows

MASK = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])


def test_from_mask():
    batch = PackedBatch.from_mask(MASK)
    assert batch.cu_seqlens.tolist() == [0, 2, 2, 6]
    assert batch.token_idx.tolist() == [1, 2, 8, 9, 10, 11]
    assert batch.position.tolist() == [0, 1, 0, 1, 2, 3]
    assert batch.lengths.tolist() == [2, 0, 4]
    assert (batch.batch, batch.length, batch.total, batch.max_seqlen) == (3, 4, 6, 4)
    assert batch.has_padding and not batch.starts_at_zero


def test_unpadded_is_the_full_mask():
    full, unpadded = PackedBatch.from_mask(torch.ones(3, 5)), PackedBatch.unpadded(3, 5)
    for name in ("cu_seqlens", "token_idx", "position"):
        ours, theirs = getattr(unpadded, name), getattr(full, name)
        assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype
    assert unpadded.max_seqlen == full.max_seqlen == 5
    assert unpadded.starts_at_zero and full.starts_at_zero and not full.has_padding


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_nothing_in_it(shape):
    for batch in (PackedBatch.from_mask(torch.ones(shape)), PackedBatch.unpadded(*shape)):
        assert batch.total == batch.max_seqlen == 0
        assert batch.cu_seqlens.tolist() == [0] * (shape[0] + 1)


def test_right_padding_starts_at_zero():
    assert PackedBatch.from_mask(torch.tensor([[1, 1, 0], [1, 0, 0]])).starts_at_zero


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int8, torch.int16, torch.bool])
def test_any_real_dtype(dtype):
    assert torch.equal(PackedBatch.from_mask(MASK.to(dtype)).token_idx, PackedBatch.from_mask(MASK).token_idx)


def test_wrong_shape():
    with pytest.raises(ValueError, match=r"attention_mask must be \(batch, length\), got shape \(12,\)"):
        PackedBatch.from_mask(MASK.flatten())


def test_select():
    batch = PackedBatch.from_mask(MASK)
    assert batch.select(torch.arange(12).view(3, 4)).tolist() == [1, 2, 8, 9, 10, 11]
    assert batch.select(torch.arange(4).expand(3, 4)).tolist() == [1, 2, 0, 1, 2, 3]
    assert batch.select(torch.zeros(3, 4, 7)).shape == (6, 7)


def test_first_rows():
    x = torch.arange(12.0).view(6, 2).requires_grad_()
    rows = first_rows(x, PackedBatch.from_mask(MASK).cu_seqlens)
    assert rows.tolist() == [[0, 1], [0, 0], [4, 5]]
    rows.sum().backward()
    assert x.grad.sum(1).tolist() == [2, 0, 2, 0, 0, 0]
    assert first_rows(x, torch.tensor([0, 1, 6], dtype=torch.int32)).tolist() == [[0, 1], [2, 3]]
