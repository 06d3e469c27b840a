"""A model over many rows, without gradients: what evaluation, calibration and the teacher have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from .data.encoding import Collator, by_length, model_inputs, on_device
from .finite import check_answers


def outputs(
    model: nn.Module, rows: Sequence[dict], collator: Collator, batch_size: int = 64, **options
) -> Iterator[tuple[list[int], dict]]:
    """(indices of the rows, the model's output) of batch after batch of texts of a length together, on the model's device; the model
    is set to eval mode.

    options: keyword arguments of the model, such as output_pruning=True.   Raises NotFiniteError for answers that are not finite.
    """
    model.eval()
    for chosen in by_length(rows, batch_size):
        with torch.no_grad():
            output = model(**inputs_of(model, [rows[row] for row in chosen], collator), **options)
        check_answers(output["logits"])
        yield chosen, output


def inputs_of(model: nn.Module, rows: Sequence[dict], collator: Collator) -> dict[str, Tensor]:
    """The rows as one batch, without labels, where the model is."""
    return on_device(model_inputs(collator(rows)), model.device)
