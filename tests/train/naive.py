"""Plain loops over texts, to hold the vectorised objectives against."""

from itertools import pairwise

import torch


def rows_of(cu_seqlens):
    """Row range of each text, empty ones included."""
    return [slice(start, end) for start, end in pairwise(cu_seqlens.tolist())]


def bounds(*lengths):
    """cu_seqlens of texts of these lengths."""
    return torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)


def ranked(scores, candidates):
    """Row numbers of the candidates by falling score, ties by position; lists of one text."""
    return sorted((row for row, there in enumerate(candidates) if there), key=lambda row: (-scores[row], row))
