"""The contenders of a comparison: Hugging Face padded, ours packed, ours pruned; same weights, batch and threads."""

import copy
from itertools import chain

import torch

import tokprune_kernels as tk

from .checks import Check, check_close, check_decisions, check_states

PADDED, PACKED = "padded", "packed"


class Comparison:
    """One plain Hugging Face model and its packed and pruned twins, which share its parameters.

    model: a Hugging Face model in eval mode. prunings: name -> PruningConfig.
    Raises ValueError where the model's type is not supported.
    """

    def __init__(self, model, prunings: dict):
        self.prunings = dict(prunings)
        self.models = {PADDED: model, PACKED: tk.prune_model(_twin(model), tk.PruningConfig.dense())}
        self.models |= {name: tk.prune_model(_twin(model), config) for name, config in self.prunings.items()}

    def run(self, name: str, batch: dict, **options):
        """Run one contender on a batch (input_ids, attention_mask (B, L)) and return its output."""
        with torch.inference_mode():
            return self.models[name](**batch, **options)

    def observe(self, name: str, batch: dict):
        """Return (output with hidden states, PruningOutput) of one of our contenders; not the call that is timed."""
        output = self.run(name, batch, output_pruning=True, output_hidden_states=True)
        return output, output["pruning"]

    def inspect(self, batch: dict, padded_to: int) -> tuple[list[Check], dict[str, float]]:
        """Return the checks of all contenders on a batch, and the FLOPs of its encoder runs.

        Checked: packed against Hugging Face, kept tokens against their rule, pruned states against plain PyTorch.
        FLOPs: for each contender, and under f"padded to {padded_to}" for texts padded to that length.
        """
        dense, config = self.models[PADDED], self.models[PADDED].config
        live = batch["attention_mask"] != 0
        lengths = live.sum(dim=1)
        expected, packed = answer(self.run(PADDED, batch)), answer(self.run(PACKED, batch))
        checks = [check_close("packed dense = Hugging Face", packed, expected, live if expected.dim() == 3 else None)]
        flops = {
            f"padded to {padded_to}": tk.flops.dense_flops(lengths, config, padded_to=padded_to),
            PADDED: tk.flops.dense_flops(lengths, config, padded_to="longest"),
            PACKED: tk.flops.dense_flops(lengths, config),
        }
        for name, pruning in self.prunings.items():
            output, seen = self.observe(name, batch)
            checks.append(check_decisions(f"{name}: kept tokens follow the importance", batch, seen, pruning))
            with torch.inference_mode():
                states = output.hidden_states[-1]
                checks += check_states(f"{name} = plain PyTorch", dense.base_model, batch, states, seen, pruning)
            checks.append(
                check_close(f"{name}: timed call = checked call", answer(self.run(name, batch)), answer(output))
            )
            flops[name] = tk.flops.encoder_flops(seen.kept_lengths, config, position=pruning.position)
        return checks, {name: float(count.sum()) for name, count in flops.items()}


def answer(output) -> torch.Tensor:
    """Return what a user reads: the logits (B, labels) of a classifier, else the last hidden state (B, L, H)."""
    return output["logits"] if "logits" in output else output["last_hidden_state"]


def _twin(model):
    """Return a copy of the model's modules around the very same parameters and buffers."""
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)
