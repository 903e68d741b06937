"""Muon and AdamW step as one: each on its own weights, scheduled together, and both come back from their state."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from convoy.training.optimizers import Muon, MuonWithAdamW, orthogonal

pytestmark = pytest.mark.torch
INPUTS, LABELS = torch.randn(64, 1, 8, 8), torch.randint(0, 3, (64,))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(6 * 16, 3))


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(INPUTS), LABELS)
        loss.backward()
        return loss.detach()

    return float(optimizer.step(closure))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_step_of_a_hidden_kernel_is_nearly_orthogonal(memory_format: torch.memory_format) -> None:
    model = network().to(memory_format=memory_format)
    kernel, first = model[2].weight, model[0].weight
    before, first_before = kernel.detach().clone(), first.detach().clone()
    step(model, MuonWithAdamW(model, muon_learning_rate=0.1, learning_rate=0.01, weight_decay=0.0))
    values = torch.linalg.svdvals((kernel.detach() - before).flatten(1))
    assert values.min() > 0.5 * values.max() > 0  # five Newton-Schulz steps leave 0.7 to 1.2
    assert (first.detach() - first_before).abs().max() == pytest.approx(0.01, rel=1e-2)  # AdamW's first step


@pytest.mark.parametrize(("rows", "columns"), [(40, 90), (90, 40)])
def test_newton_schulz_leaves_what_its_docstring_says(rows: int, columns: int) -> None:
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(size, 40, dtype=torch.float64))[0] for size in (rows, columns))
    values = torch.logspace(0, -5, 40, dtype=torch.float64)
    values[-1] = 0
    values /= values.norm()
    found = left.T @ orthogonal(left @ values.diag() @ right.T) @ right
    assert torch.allclose(found, found.diag().diag(), atol=1e-9)  # the singular vectors stay
    large = values >= 0.0015
    assert 5 < large.sum() < 35
    assert 0.679 < found.diag()[large].min() < 0.75 and 1.1 < found.diag()[large].max() < 1.21
    growth = found.diag()[~large][:-1] / values[~large][:-1]
    assert growth.min() > 400 and growth.max() < 485 and found.diag()[-1].abs() < 1e-12


@pytest.mark.parametrize("shape", [(8, 12, 3, 3), (48, 4, 2, 2)])
def test_muon_makes_the_steps_of_torch_but_for_its_rounding(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(shape))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    ours = Muon([kernel], learning_rate=0.1, weight_decay=0.05)
    theirs = torch.optim.Muon([matrix], lr=0.1, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        before = matrix.detach().clone()
        gradient = torch.randn(shape)
        kernel.grad, matrix.grad = gradient, gradient.flatten(1)
        ours.step()
        theirs.step()
        rounding = 0.02 * (matrix - before).norm()  # bfloat16 has 8 bits
        assert (kernel.flatten(1) - matrix).norm() < 5 * rounding
    assert (matrix - kernel.flatten(1)).norm() < 0.02 * matrix.norm()


def test_it_learns_and_a_schedule_moves_both_rates() -> None:
    model = network()
    optimizer = MuonWithAdamW(model, muon_learning_rate=0.05, learning_rate=0.01, weight_decay=0.0)
    schedule = OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=41, cycle_momentum=False
    )
    losses = []
    for _ in range(40):
        losses.append(step(model, optimizer))
        schedule.step()
    assert losses[-1] < 0.5 * losses[0]
    assert all(part.param_groups[0]["lr"] < 1e-4 for part in optimizer.parts)


def test_it_goes_on_from_its_state_as_if_it_had_never_stopped() -> None:
    one = network()
    optimizer = MuonWithAdamW(one, 0.05, 0.01, 0.01)
    for _ in range(3):
        step(one, optimizer)
    two = copy.deepcopy(one)
    resumed = MuonWithAdamW(two, 0.05, 0.01, 0.01)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        step(one, optimizer)
        step(two, resumed)
    for left, right in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_network_without_hidden_kernels_is_left_to_adamw() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    optimizer = MuonWithAdamW(model, 0.05, 0.01, 0.0)
    assert [len(part.param_groups[0]["params"]) for part in optimizer.parts] == [2]
