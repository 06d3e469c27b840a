"""Distillation from the dense model: of its answers (Hinton et al., 2015), of the states that lead to them, and of importance."""

import torch
from torch import Tensor
from torch.nn import functional

from .ragged import at_least_float32, is_first_token, mean_over_texts, per_text_sum, text_index


def prediction_distillation(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """How far the student's answers are from the teacher's: T^2 * KL(teacher || student) of the softmax of logits / T.

    T^2 keeps the size of the gradients when T changes. A single column is regression: the mean squared error.

    Args:
        student_logits: (B, C) float.
        teacher_logits: (B, C) float.
        temperature: T > 0, higher = more weight on unlikely classes; of no effect in regression.

    Returns:
        scalar, the mean over the B rows; gradients reach the student's logits (and the teacher's, if they ask for any).

    Raises:
        ValueError: the shapes differ or are not (B, C), or temperature is not positive.
    """
    if student_logits.dim() != 2 or student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student_logits and teacher_logits must both be (B, C), got shapes {tuple(student_logits.shape)} and "
            f"{tuple(teacher_logits.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if student_logits.shape[1] == 1:
        return functional.mse_loss(student_logits, teacher_logits)
    student, teacher = (functional.log_softmax(x / temperature, dim=1) for x in (student_logits, teacher_logits))
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def state_distillation(student_state: Tensor, teacher_state: Tensor) -> Tensor:
    """How far the states of the two models point apart: the squared distance of the two at unit length, 2 - 2 cos.

    Answers over few classes say little about a text; a state says as much as it has dimensions (Patient Knowledge
    Distillation, Sun et al., EMNLP 2019, equation 7).

    Args:
        student_state, teacher_state: (B, H) float, or (B, N, H) of N layers.

    Returns:
        scalar in [0, 4], the mean over the B rows and the N layers; gradients reach the student's state.

    Raises:
        ValueError: the shapes differ or are neither.
    """
    if student_state.dim() not in (2, 3) or student_state.shape != teacher_state.shape:
        raise ValueError(
            f"student_state and teacher_state must both be (B, H) or (B, N, H), got shapes {tuple(student_state.shape)} and "
            f"{tuple(teacher_state.shape)}"
        )
    return _apart(student_state, teacher_state).mean()


def token_distillation(student_states: Tensor, teacher_states: Tensor, alive: Tensor, cu_seqlens: Tensor) -> Tensor:
    """How far the states of the tokens that are still there point apart in the two models: `state_distillation` of every token.

    What a survivor is to the dense model holds what it read of the tokens that the student has let go: it is told to read it
    before they leave.

    Args:
        student_states, teacher_states: (T, H) float, of the packed tokens between the same two layers.
        alive: (T,) bool, the tokens that count.
        cu_seqlens: (B + 1,) integers, row bounds of the texts.

    Returns:
        scalar in [0, 4] in the student's dtype (half precision: float32), the mean over a text's tokens alive, and of that the mean over
        the texts that are not empty; gradients reach the student's states only.

    Raises:
        ValueError: the shapes do not fit, or cu_seqlens does not end at T.
    """
    if student_states.dim() != 2 or student_states.shape != teacher_states.shape or alive.shape != student_states.shape[:1]:
        raise ValueError(
            f"student_states and teacher_states must be (T, H), alive (T,), of the same tokens; got shapes "
            f"{tuple(student_states.shape)}, {tuple(teacher_states.shape)} and {tuple(alive.shape)}"
        )
    # Of the tokens alive only: what is left of the others costs nothing, and may be anything.
    places = alive.nonzero().flatten()
    student = at_least_float32(student_states.index_select(0, places))
    apart = _apart(student, teacher_states.detach().index_select(0, places).to(student.dtype))
    everywhere = apart.new_zeros(len(alive)).index_copy(0, places, apart)
    means = per_text_sum(everywhere, cu_seqlens) / per_text_sum(alive.long(), cu_seqlens).clamp(min=1)
    return mean_over_texts(means, cu_seqlens.diff() > 0)


def importance_distillation(student_importance: Tensor, teacher_importance: Tensor, alive: Tensor, cu_seqlens: Tensor) -> Tensor:
    """How differently the two models share importance out among the tokens that a decision is between: KL(teacher || student).

    Of each text those alive count, but the first, which stays anyway; over them the importance of either model is scaled to
    add up to 1.

    Args:
        student_importance: (T,) float, of the packed tokens in one layer.
        teacher_importance: (T,) float, of the same tokens.
        alive: (T,) bool, those that take part in the student's layer.
        cu_seqlens: (B + 1,) integers, row bounds of the texts.

    Returns:
        scalar in the student's dtype (half precision: float32), the mean over the texts that are not empty; a text with less than two
        such tokens, or whose teacher gives all of them 0, adds 0. Gradients reach the student's importance only.

    Raises:
        ValueError: the shapes differ, or cu_seqlens does not end at T.
    """
    if not student_importance.shape == teacher_importance.shape == alive.shape or alive.dim() != 1:
        raise ValueError(
            f"student_importance, teacher_importance and alive must be of the same tokens (T,), got shapes "
            f"{tuple(student_importance.shape)}, {tuple(teacher_importance.shape)} and {tuple(alive.shape)}"
        )
    counted = alive & ~is_first_token(cu_seqlens, len(alive))
    student = at_least_float32(student_importance)
    student, teacher = (_shares(values * counted, cu_seqlens) for values in (student, teacher_importance.detach().to(student.dtype)))
    told = counted & (teacher > 0)
    # Where nothing is told, logarithms of 1: neither 0 * inf nor its gradient.
    student, teacher = (torch.where(told, values, 1) for values in (student, teacher))
    apart = torch.where(told, teacher * (teacher.log() - student.clamp(min=torch.finfo(student.dtype).tiny).log()), 0)
    return mean_over_texts(per_text_sum(apart, cu_seqlens), cu_seqlens.diff() > 0)


def _apart(one: Tensor, other: Tensor) -> Tensor:
    """(...,) of (..., H): the squared distance of two states at unit length."""
    return (functional.normalize(one, dim=-1) - functional.normalize(other, dim=-1)).square().sum(dim=-1)


def _shares(values: Tensor, cu_seqlens: Tensor) -> Tensor:
    """(T,) values over their text's sum; 0 where that is 0."""
    sums = per_text_sum(values, cu_seqlens)[text_index(cu_seqlens, len(values))]
    return values / torch.where(sums > 0, sums, 1)
