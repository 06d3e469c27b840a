"""Holding a training to a budget (ToP, Li et al., KDD 2023): expected lengths, and the Lagrangian penalty on the sparsity."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn


def expected_lengths(keep: Tensor, layers: Sequence[int], num_layers: int, lengths: Tensor) -> Tensor:
    """The tokens of each text that are expected in each layer: n_l = 1 + (n_0 - 1) * prod_{pruning layers j <= l} keep_j.

    Args:
        keep: (n,) float, the share that each pruning layer keeps, as `RankGates.keep_probability`.
        layers: their n 0-based positions in the model, ascending; they prune at their entry.
        num_layers: of the model.
        lengths: (B,), n_0, tokens of each text; 0 for an empty one.

    Returns:
        (num_layers + 1, B) in keep's dtype, as `out.pruning.kept_lengths` with position "before_layer": row l is the number in
        layer l's attention, and the last row that of the last layer. Empty texts have 0. Differentiable.

    Raises:
        ValueError: keep and layers do not fit each other or the model.
    """
    index = torch.tensor(list(layers), dtype=torch.int64, device=keep.device)
    if keep.shape != index.shape:
        raise ValueError(f"keep must hold one share for each of the {len(index)} pruning layers, got shape {tuple(keep.shape)}")
    if any(not 0 <= layer < num_layers for layer in layers):
        raise ValueError(f"layers must be in 0..{num_layers - 1}, got {list(layers)}")
    shares = keep.new_ones(num_layers).index_copy(0, index, keep).cumprod(dim=0)
    shares = torch.cat([shares, shares[-1:]])
    others = (lengths - 1).clamp(min=0).to(keep.dtype)
    return shares[:, None] * others + (lengths > 0).to(keep.dtype)


class Lagrangian(nn.Module):
    """The penalty that drives the sparsity to its target: linear * (s - t) + quadratic * (s - t)^2.

    The multipliers `linear` and `quadratic` (scalars) rise against the model: they are to be *maximised* by the
    optimiser while everything else minimises, in a parameter group with maximize=True and without weight decay. While the
    sparsity is too low `linear` falls, which makes sparsity pay; while it is too high `linear` rises; `quadratic` only
    grows, with the distance that is left. `linear` is 0 at first.
    """

    def __init__(self, target: float, ramp: float, quadratic: float = 0.0):
        """target: sparsity to reach, in (0, 1).   ramp: share of the training, in [0, 1], in which the target rises to it.
        quadratic: the multiplier's value at first. With 0 the model is free to leave the target until the multipliers have
        climbed; where it starts on the target, it is held there by a value that outweighs the task.

        Raises ValueError if one of them is out of its range.
        """
        super().__init__()
        if not 0 < target < 1:
            raise ValueError(f"target must be a sparsity in (0, 1), the share of the cost to save, got {target}")
        if not 0 <= ramp <= 1:
            raise ValueError(f"ramp must be a share of the training in [0, 1], got {ramp}")
        if not 0 <= quadratic < float("inf"):
            raise ValueError(f"quadratic, the first multiplier of the squared distance to the target, must be finite and 0 or more, got {quadratic}")
        self.target, self.ramp = target, ramp
        self.register_buffer("start", torch.tensor(0.0))
        self.linear = nn.Parameter(torch.tensor(0.0))
        self.quadratic = nn.Parameter(torch.tensor(float(quadratic)))

    def start_from(self, sparsity: Tensor) -> None:
        """Let the target rise from what the model saves already, instead of 0: else it would be driven back there first."""
        self.start.copy_(sparsity.detach().clamp(0.0, self.target))

    def ramped(self, progress: float) -> float:
        """How much of the ramp is over when `progress` of the training, in [0, 1], is."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress must be the share of the training that is over, in [0, 1], got {progress}")
        return 1.0 if progress >= self.ramp else progress / self.ramp

    def target_at(self, progress: float) -> float:
        """The target when `progress` of the training is over: linear from the start up to the end of the ramp."""
        start = float(self.start)
        return start + (self.target - start) * self.ramped(progress)

    def forward(self, sparsity: Tensor, progress: float) -> Tensor:
        """The penalty, a scalar, for an expected sparsity (scalar, 1 - relative cost); gradients reach it and the multipliers."""
        excess = sparsity - self.target_at(progress)
        return self.linear * excess + self.quadratic * excess.square()

    def extra_repr(self) -> str:
        return f"target={self.target}, ramp={self.ramp}"


def global_mean(x: Tensor) -> Tensor:
    """The value of the mean of x over the processes of torch.distributed, with the gradient of this process's own x.

    Data-parallel training averages gradients over the processes, so what is computed from it has, after that, the gradient
    that one process with the whole batch would have had. Without initialised processes it is x itself. All must call it.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return x
    mean = x.detach().clone()
    distributed.all_reduce(mean)
    mean /= distributed.get_world_size()
    return x + (mean - x).detach()
