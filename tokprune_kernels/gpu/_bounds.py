"""What every kernel over ragged sequences begins with."""

import triton
import triton.language as tl


@triton.jit
def sequence_bounds(cu_seqlens, sequence, total):
    """First row and length of a sequence, held within the `total` rows that there are, whatever cu_seqlens says."""
    start = tl.minimum(tl.maximum(tl.load(cu_seqlens + sequence), 0), total)
    end = tl.minimum(tl.maximum(tl.load(cu_seqlens + sequence + 1), start), total)
    return start, end - start
