"""Prediction distillation (Hinton et al., 2015): the student's answers against the teacher's."""

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
