"""The arithmetic of convolution and recurrence, worked by hand, is what torch computes."""

import pytest
import torch
from torch import nn

from lab.learning import costs
from lab.learning.cells import CELLS, recurrent_cell

pytestmark = pytest.mark.torch


def test_the_worked_convolution_gives_4() -> None:
    patch = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1]])
    kernel = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    by_hand = sum(int(patch[row, column] * kernel[row, column]) for row in range(3) for column in range(3))
    found = nn.functional.conv2d(patch.float()[None, None], kernel.float()[None, None])
    assert by_hand == found.item() == 4


def test_max_pooling_of_the_worked_window_gives_3() -> None:
    window = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    assert nn.functional.max_pool2d(window[None, None], 2).item() == 3


def test_32_kernels_of_3_x_3_hold_288_weights_wherever_they_look() -> None:
    layer = nn.Conv2d(1, 32, kernel_size=3, bias=False)
    assert costs.count_weights(layer) == 32 * 3 * 3 == 288
    assert [layer(torch.zeros(1, 1, side, side)).shape[1:] for side in (3, 28)] == [(32, 1, 1), (32, 26, 26)]


def test_a_convolution_follows_a_shift_of_its_image() -> None:
    image = nn.functional.pad(torch.rand(1, 1, 6, 6), (4, 4, 4, 4))
    layer = nn.Conv2d(1, 2, kernel_size=3)
    moved = layer(image.roll((2, -1), dims=(2, 3)))
    assert torch.equal(moved[:, :, 3:-3, 3:-3], layer(image).roll((2, -1), dims=(2, 3))[:, :, 3:-3, 3:-3])


def test_an_unrolled_elman_network_is_its_recurrence() -> None:
    cell = recurrent_cell("rnn", 3, 5)
    inputs, state = torch.rand(2, 7, 3), torch.zeros(2, 5)
    for step in range(7):
        inside = inputs[:, step] @ cell.weight_ih_l0.T + cell.bias_ih_l0 + state @ cell.weight_hh_l0.T + cell.bias_hh_l0
        state = inside.tanh()
    assert torch.allclose(cell(inputs)[0][:, -1], state, atol=1e-6)


def test_an_unrolled_lstm_is_its_gates() -> None:
    cell = recurrent_cell("lstm", 3, 5)
    inputs, state, kept = torch.rand(2, 7, 3), torch.zeros(2, 5), torch.zeros(2, 5)
    for step in range(7):
        inside = inputs[:, step] @ cell.weight_ih_l0.T + cell.bias_ih_l0 + state @ cell.weight_hh_l0.T + cell.bias_hh_l0
        enter, forget, new, leave = inside.chunk(4, dim=1)
        kept = forget.sigmoid() * kept + enter.sigmoid() * new.tanh()
        state = leave.sigmoid() * kept.tanh()
    assert torch.allclose(cell(inputs)[0][:, -1], state, atol=1e-6)


@pytest.mark.parametrize("kind, gates", [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_the_multiply_adds_that_torch_counts_are_those_of_the_formula(kind: str, gates: int) -> None:
    cell = CELLS[kind](28, 80, batch_first=True)
    assert costs.count_answer(_First(cell), torch.rand(2, 28, 28)) == 2 * 28 * gates * 80 * (28 + 80)


def test_a_training_step_costs_three_times_an_answer_less_the_gradient_of_the_pixels() -> None:
    layer = nn.Linear(784, 10)
    assert costs.count_answer(layer, torch.rand(4, 784)) == 4 * 7840
    assert costs.count_step(layer, torch.rand(4, 784)) == 2 * 4 * 7840


def test_only_an_lstms_forget_gate_begins_open_and_states_begin_orthogonal() -> None:
    cell = recurrent_cell("lstm", 3, 4)
    biases = cell.bias_ih_l0 + cell.bias_hh_l0
    assert biases.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8
    for gate in torch.split(cell.weight_hh_l0, 4):
        assert torch.allclose(gate @ gate.T, torch.eye(4), atol=1e-5)


class _First(nn.Module):
    """A recurrent layer's states alone."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.cell(inputs)[0]
        return states
