"""What layers keep for the backward pass: less than autograd would, with the same results and gradients."""

import pytest
import torch
from torch import nn

from tokprune_kernels.layers.saved import for_three, through_activation


class Counted(nn.GELU):
    """GELU that counts its calls."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_a_recomputed_activation_gives_the_same_bits(dtype):
    project, gelu = nn.Linear(16, 8).to(dtype), Counted()
    results = []
    for recomputed in (False, True):
        x = torch.randn(5, 16, dtype=dtype, generator=torch.Generator().manual_seed(0)).requires_grad_()
        y = through_activation(gelu, x, project) if recomputed else project(gelu(x))
        results.append((y, *torch.autograd.grad(y.float().square().sum(), (x, *project.parameters()))))
    assert all(torch.equal(plain, ours) for plain, ours in zip(*results, strict=True))
    assert gelu.calls == 3, "once for each forward, and once more instead of being kept"


def test_what_is_not_the_activation_is_kept_as_it_is():
    first, second, gelu = nn.Linear(16, 16), nn.Linear(16, 8), Counted()
    x = torch.randn(5, 16, requires_grad=True)
    wrapped = nn.Sequential(first, nn.Tanh(), second)  # as a projection that was wrapped: it keeps other tensors too
    ours = torch.autograd.grad(through_activation(gelu, x, wrapped).sum(), (x, *wrapped.parameters()))
    plain = torch.autograd.grad(wrapped(gelu(x)).sum(), (x, *wrapped.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True)) and gelu.calls == 3


def test_a_recomputed_activation_can_be_differentiated_twice():
    project = nn.Linear(4, 3, dtype=torch.float64)
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def function(x, weight):
        return through_activation(nn.GELU(), x, lambda wide: nn.functional.linear(wide, weight).square())

    assert torch.autograd.gradcheck(function, (x, project.weight))
    assert torch.autograd.gradgradcheck(function, (x, project.weight))


def test_three_projections_share_one_copy_under_autocast():
    projections = [nn.Linear(16, 16) for _ in range(3)]
    weights = [p.weight for p in projections]
    leaf = torch.randn(5, 16, requires_grad=True)
    x = leaf * 1  # of a leaf autocast itself keeps one copy only, and adds the gradients in bf16
    with torch.autocast("cpu", torch.bfloat16):
        shared = for_three(x)
        ours = [project(own) for project, own in zip(projections, shared, strict=True)]
        plain = [project(x) for project in projections]
    assert len({one.data_ptr() for one in shared}) == 1 and all(one.dtype == torch.bfloat16 for one in shared)
    losses = [sum(y.float().square().sum() for y in outputs) for outputs in (ours, plain)]
    grads = [torch.autograd.grad(loss, (leaf, *weights), retain_graph=True) for loss in losses]
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)  # the three are added in another order


def test_without_autocast_there_is_nothing_to_share():
    x = torch.randn(5, 16)
    assert all(one is x for one in for_three(x))
    with torch.autocast("cpu", torch.bfloat16):
        half = x.bfloat16()
        assert all(one is half for one in for_three(half))
