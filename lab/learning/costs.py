"""A network -> what it costs: weights, multiply-adds of an answer and of a training step, seconds per answer."""

import time
from collections.abc import Callable
from copy import deepcopy
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

WARM_UP, ROUNDS = 3, 15  # answers before timing, and rounds whose median counts
ROUND_S = 0.05  # a round repeats what is quicker than that


def count_weights(network: nn.Module) -> int:
    """All that training changes."""
    return sum(weights.numel() for weights in network.parameters())


def count_answer(network: nn.Module, inputs: Tensor) -> int:
    """Multiply-adds of one forward pass over a batch of such inputs, as torch counts them; additions alone are none."""
    with torch.no_grad():
        return _count(network, inputs, lambda ghost, ghosts: ghost(ghosts))


def count_step(network: nn.Module, inputs: Tensor) -> int:
    """Multiply-adds of one training step over such inputs, forwards and backwards, without the optimizer's."""
    return _count(network, inputs, lambda ghost, ghosts: torch.autograd.backward(ghost(ghosts).sum()))


def _count(network: nn.Module, inputs: Tensor, pass_through: Callable[[nn.Module, Tensor], object]) -> int:
    """By a copy on torch's meta device, which computes nothing: there an LSTM is seen as the products that it is.

    On a CPU it would be one call of oneDNN's, of which the counter knows nothing.
    """
    with FlopCounterMode(display=False) as counter:
        pass_through(deepcopy(network).to("meta"), inputs.to("meta"))
    return int(counter.get_total_flops()) // 2


@torch.inference_mode()
def measure_seconds(network: nn.Module, inputs: Tensor) -> float:
    """Median seconds of a forward pass on one thread: of the same machine and moment only can two be compared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network.eval()
        for _ in range(WARM_UP):
            network(inputs)
        once = _time(network, inputs, 1)
        repeats = max(1, int(ROUND_S / max(once, 1e-6)))
        return median(_time(network, inputs, repeats) for _ in range(ROUNDS))
    finally:
        torch.set_num_threads(threads)


def _time(network: nn.Module, inputs: Tensor, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        network(inputs)
    return (time.perf_counter() - start) / repeats
