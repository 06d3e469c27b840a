"""Ranking distillation (ToP, Li et al., KDD 2023): early layers learn to rank tokens as the teacher's last layer does."""

import math

import torch
from torch import Tensor, nn

from .ragged import at_least_float32, is_first_token, mean_over_texts, rank_in_text, text_index


def ranking_distillation(
    student_scores: Tensor,
    teacher_scores: Tensor,
    cu_seqlens: Tensor,
    top: int = 20,
    sigma: float = 1.0,
    scale_by_length: bool = True,
) -> Tensor:
    """LambdaLoss with the weights of ARP2 (Wang et al., CIKM 2018) of the student's scores against the teacher's ranks.

    Of each text, the `top` tokens that the teacher ranks highest, n of them, enter; the text's first token never does. With
    relevance y = n - rank, the loss of a text is

        1 / n^2 * sum over pairs y_i > y_j of (y_i - y_j) * log2(1 + exp(-sigma * (s_i - s_j)))

    Importance is a share of 1: in a text of 50 tokens a typical difference of scores is 0.01, for which the logistic loss
    has the same slope as for 0 (and for any difference of that size, right order or wrong). The student's scores are
    therefore multiplied by the length of their text, which makes their mean 1 where they sum to 1, and long texts as
    easy to learn from as short ones. ToP's official code, which has no such factor, is scale_by_length=False.

    Args:
        student_scores: (T,) float, importance in a layer of the student.
        teacher_scores: (T,) float, importance in the teacher's last layer. Ties rank the earlier token higher.
        cu_seqlens: (B + 1,) integers, row bounds of the texts.
        top: tokens of a text that enter at most.
        sigma: steepness of the logistic loss, > 0.
        scale_by_length: see above.

    Returns:
        scalar in the student's dtype (half precision: float32), the mean over the texts that are not empty; texts with fewer
        than two tokens beside the first add 0. Gradients reach the student's scores only.

    Raises:
        ValueError: the shapes differ, top or sigma is not positive, or cu_seqlens does not end at T.
    """
    if top < 1 or not sigma > 0:
        raise ValueError(f"top must be at least 1 and sigma positive, got {top} and {sigma}")
    if student_scores.shape != teacher_scores.shape:
        raise ValueError(
            f"student_scores and teacher_scores must be of the same tokens (T,), got shapes {tuple(student_scores.shape)} "
            f"and {tuple(teacher_scores.shape)}"
        )
    scores = at_least_float32(student_scores)
    lengths, texts = cu_seqlens.diff(), text_index(cu_seqlens, len(scores))
    if scale_by_length:
        scores = scores * lengths[texts]
    ranks = rank_in_text(teacher_scores, ~is_first_token(cu_seqlens, len(scores)), cu_seqlens)
    chosen = ((ranks >= 0) & (ranks < top)).nonzero().flatten()

    # One row a text, by the teacher's rank: the pairs of each are then the upper triangle of a square of `top`.
    by_rank = scores.new_zeros(len(lengths) * top).index_copy(0, texts[chosen] * top + ranks[chosen], scores[chosen])
    by_rank = by_rank.view(-1, top)
    entered = (lengths - 1).clamp(0, top)
    place = torch.arange(top, device=ranks.device)
    gain = (place - place[:, None]).clamp(min=0)  # y_i - y_j of the pairs with y_i > y_j
    losses = nn.functional.softplus(-sigma * (by_rank[:, :, None] - by_rank[:, None, :])) / math.log(2)
    counted = gain * (place < entered[:, None])[:, None, :]
    sums = (counted * losses).sum(dim=(1, 2)) / entered.clamp(min=1).square()
    return mean_over_texts(sums, lengths > 0)
