"""Expected lengths and the Lagrangian by hand, and the mean over processes on two of them."""

import pytest
import torch
from tokprune_train.objectives.constraint import Lagrangian, expected_lengths, global_mean


def test_expected_lengths_by_hand():
    """Two texts and an empty one; layer 1 keeps half of what is not [CLS], layer 3 a quarter of that."""
    lengths = expected_lengths(torch.tensor([0.5, 0.25]), [1, 3], 5, torch.tensor([9, 0, 1]))
    assert lengths[:, 0].tolist() == [9, 5, 5, 2, 2, 2]
    assert lengths[:, 1].tolist() == [0] * 6 and lengths[:, 2].tolist() == [1] * 6


def test_expected_lengths_gradients():
    keep = torch.tensor([0.5, 0.0, 0.25], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: expected_lengths(k, [1, 2, 4], 5, torch.tensor([9, 4])), keep)


def test_target_rises_to_the_end_of_the_ramp():
    lagrangian = Lagrangian(0.6, ramp=0.5)
    assert [lagrangian.target_at(p) for p in (0, 0.25, 0.5, 1)] == pytest.approx([0, 0.3, 0.6, 0.6])
    assert Lagrangian(0.6, ramp=0).target_at(0) == 0.6


def test_target_rises_from_where_the_model_is():
    """Not from 0, which would drive back what is saved already; a model that saves enough has its target at once."""
    lagrangian = Lagrangian(0.6, ramp=0.5)
    lagrangian.start_from(torch.tensor(0.2, requires_grad=True))
    assert [lagrangian.target_at(p) for p in (0, 0.25, 0.5, 1)] == pytest.approx([0.2, 0.4, 0.6, 0.6])
    assert [lagrangian.ramped(p) for p in (0, 0.25, 0.5, 1)] == pytest.approx([0, 0.5, 1, 1])
    lagrangian.start_from(torch.tensor(0.9))
    assert lagrangian.target_at(0) == pytest.approx(0.6)


def test_penalty_by_hand():
    lagrangian = Lagrangian(0.6, ramp=0.5)
    with torch.no_grad():
        lagrangian.linear.fill_(-2.0), lagrangian.quadratic.fill_(3.0)
    sparsity = torch.tensor(0.4, requires_grad=True)
    penalty = lagrangian(sparsity, 1.0)
    penalty.backward()
    assert float(penalty.detach()) == pytest.approx(-2 * -0.2 + 3 * 0.04)
    assert float(sparsity.grad) == pytest.approx(-2 + 3 * 2 * -0.2)
    assert (float(lagrangian.linear.grad), float(lagrangian.quadratic.grad)) == pytest.approx((-0.2, 0.04))


def test_ascent_on_the_multipliers_brings_the_sparsity_to_its_target():
    lagrangian, wish = Lagrangian(0.6, ramp=0.2), torch.nn.Parameter(torch.tensor(-2.0))
    groups = [{"params": [wish]}, {"params": list(lagrangian.parameters()), "maximize": True}]
    optimizer = torch.optim.AdamW(groups, lr=0.05, weight_decay=0.0)
    for step in range(1200):
        sparsity = torch.sigmoid(wish)
        loss = sparsity + lagrangian(sparsity, step / 1200)  # the task would rather have none
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(torch.sigmoid(wish.detach())) == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize(("quadratic", "left"), [(0.0, True), (40.0, False)])
def test_a_multiplier_from_the_start_holds_a_model_on_its_target(quadratic, left):
    """Without it a model that starts on the target leaves it for the task, until the multipliers have climbed."""
    lagrangian, wish = Lagrangian(0.5, ramp=0.5, quadratic=quadratic), torch.nn.Parameter(torch.tensor(0.0))
    lagrangian.start_from(torch.sigmoid(wish))
    groups = [{"params": [wish]}, {"params": list(lagrangian.parameters()), "maximize": True}]
    optimizer = torch.optim.AdamW(groups, lr=0.05, weight_decay=0.0)
    furthest = 0.0
    for step in range(200):
        sparsity = torch.sigmoid(wish)
        loss = sparsity + lagrangian(sparsity, step / 200)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        furthest = max(furthest, 0.5 - float(sparsity.detach()))
    assert (furthest > 0.1) == left
    assert left or furthest < 0.03


def test_global_mean_of_one_process_is_the_tensor_itself():
    x = torch.tensor(0.3)
    assert global_mean(x) is x


def spawned(rank, folder):
    """One of two processes: sparsity w * (rank + 1), of a weight that both have."""
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    weight = torch.tensor(0.2, requires_grad=True)
    mean = global_mean(weight * (rank + 1))
    mean.square().backward()
    torch.save((float(mean.detach()), float(weight.grad)), f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


def test_global_mean_of_two_processes(tmp_path):
    """The value is that of the whole batch; gradients, averaged as data-parallel training does, are too."""
    torch.multiprocessing.spawn(spawned, (str(tmp_path),), nprocs=2)
    (first, grad_first), (second, grad_second) = (torch.load(tmp_path / str(rank)) for rank in range(2))
    assert first == second == pytest.approx(0.3)
    # d (1.5 w)^2 / dw = 4.5 w
    assert (grad_first + grad_second) / 2 == pytest.approx(0.9)
    assert grad_first == pytest.approx(2 * 0.3 * 1)


BAD = {
    "target": lambda: Lagrangian(1.0, 0.5),
    "quadratic": lambda: Lagrangian(0.5, 0.5, quadratic=-1.0),
    "ramp": lambda: Lagrangian(0.5, 1.5),
    "progress": lambda: Lagrangian(0.5, 0.5).target_at(1.1),
    "keep": lambda: expected_lengths(torch.ones(2), [1], 4, torch.tensor([3])),
    "layers": lambda: expected_lengths(torch.ones(2), [1, 4], 4, torch.tensor([3])),
}


@pytest.mark.parametrize("named", BAD)
def test_refusals(named):
    with pytest.raises(ValueError, match=named):
        BAD[named]()
