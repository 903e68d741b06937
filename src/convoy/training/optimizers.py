"""Muon for kernels of hidden convolutions, AdamW for all other weights: two optimizers that step as one."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan's quintic: steepest at 0, so that small singular values grow fast
ITERATIONS = 5


def adamw(weights: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) in one pass over the weights.

    On two AVX2 cores the passes of torch's default took 50 more of the 350 ms of a step of 8.4 million weights.
    """
    return torch.optim.AdamW(weights, learning_rate, weight_decay=weight_decay, fused=True)


class Muon(torch.optim.Optimizer):
    """Every step of a kernel is nearly `orthogonal`, so that directions with small gradients learn too.

    Muon (Jordan 2024, kellerjordan.github.io/posts/muon) with the steps scaled to the size of AdamW's (Liu et al. 2025,
    arXiv:2502.16982). A kernel (outputs, inputs, height, width) is taken as a matrix (outputs, inputs * area). It
    does what torch.optim.Muon does, but not in bfloat16, which a CPU without instructions for it emulates: on two AVX2
    cores 310 of the 650 ms of a training step, against 16 in float32.
    """

    def __init__(self, kernels: list[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        super().__init__(kernels, {"lr": learning_rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all kernels; `closure` computes loss and gradients first."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is not None:
                    self._update(kernel, kernel.grad, group["lr"], group["weight_decay"])
        return loss

    def _update(self, kernel: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        state = self.state[kernel]
        momentum = state.setdefault("momentum", torch.zeros_like(kernel))
        momentum.lerp_(gradient, 1 - MOMENTUM)
        update = gradient.lerp(momentum, MOMENTUM).flatten(1)  # Nesterov momentum
        kernel.mul_(1 - rate * decay)
        scaled_rate = rate * 0.2 * math.sqrt(max(update.shape))
        kernel.add_(orthogonal(update).view(kernel.shape), alpha=-scaled_rate)


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix (rows, columns) near the closest orthogonal one: same singular vectors, singular values near 1.

    Five Newton-Schulz steps with Jordan's coefficients, which trade precision for speed and do not converge: singular
    values of at least 0.0015 of the Frobenius norm come to between 0.68 and 1.21, smaller ones grow up to 485 times,
    zeros stay. On a GPU bfloat16 adds its rounding.
    """
    a, b, c = COEFFICIENTS
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    estimate = wide.bfloat16() if matrix.is_cuda else wide
    estimate = estimate / estimate.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = estimate @ estimate.T
        estimate = torch.addmm(estimate, torch.addmm(gram, gram, gram, beta=b, alpha=c), estimate, beta=a)
    estimate = estimate.to(matrix.dtype)
    return estimate.T if wide is not matrix else estimate


class MuonWithAdamW(torch.optim.Optimizer):
    """Kernels of hidden convolutions learn by Muon; the first and the last layer, gains and biases by AdamW."""

    def __init__(
        self, network: nn.Module, muon_learning_rate: float, learning_rate: float, weight_decay: float
    ) -> None:
        super().__init__(network.parameters(), {})
        kernels = [weight for weight in network.parameters() if _is_hidden_kernel(weight)]
        other_weights = [weight for weight in network.parameters() if not _is_hidden_kernel(weight)]
        self.parts: list[torch.optim.Optimizer] = [adamw(other_weights, learning_rate, weight_decay)]
        if kernels:
            self.parts.append(Muon(kernels, muon_learning_rate, weight_decay))
        self._share_groups()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; `closure` computes loss and gradients first."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state of each part."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()

    def _share_groups(self) -> None:
        """Use the same dictionaries here as in the parts, so that a schedule that sets a rate here sets it there."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def _is_hidden_kernel(weight: Tensor) -> bool:
    """Kernels of a hidden convolution; the first convolution, of pixels, is left to AdamW, as Jordan does."""
    return weight.ndim > 2 and weight.shape[1] > 3
