"""Distillation from the dense model: of its answers (Hinton et al., 2015), and of the states that lead to them."""

from torch import Tensor
from torch.nn import functional


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
    apart = functional.normalize(student_state, dim=-1) - functional.normalize(teacher_state, dim=-1)
    return apart.square().sum(dim=-1).mean()
