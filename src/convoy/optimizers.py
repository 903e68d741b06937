"""Muon for what multiplies vectors, AdamW for the rest: two optimizers of torch that step as one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class MuonWithAdamW(torch.optim.Optimizer):
    """Kernels of hidden convolutions learn by Muon; the first and the last layer, gains and biases by AdamW.

    Muon (Jordan 2024, kellerjordan.github.io/posts/muon) makes every step an orthogonal matrix, so that directions
    with small gradients learn too. torch has it for matrices only: a kernel is seen as (outputs, inputs * area). Its
    steps are scaled to the size of AdamW's (Liu et al. 2025, arXiv:2502.16982).
    """

    def __init__(
        self, network: nn.Module, muon_learning_rate: float, learning_rate: float, weight_decay: float
    ) -> None:
        super().__init__(network.parameters(), {})
        self.kernels = [weight for weight in network.parameters() if _is_kernel(weight)]
        self.matrices = [nn.Parameter(kernel.detach().flatten(1).clone()) for kernel in self.kernels]
        known = set(map(id, self.kernels))
        others = [weight for weight in network.parameters() if id(weight) not in known]
        self.parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, learning_rate, weight_decay=weight_decay)]
        if self.matrices:
            scale = "match_rms_adamw"
            self.parts.append(
                torch.optim.Muon(self.matrices, muon_learning_rate, weight_decay=weight_decay, adjust_lr_fn=scale)
            )
        self._share_groups()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; `closure` computes loss and gradients first."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for matrix, kernel in zip(self.matrices, self.kernels, strict=True):
            matrix.copy_(kernel.flatten(1))
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        for part in self.parts:
            part.step()
        for matrix, kernel in zip(self.matrices, self.kernels, strict=True):
            kernel.copy_(matrix.view(kernel.shape))
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all weights."""
        for weight in (*self.kernels, *(weight for group in self.param_groups for weight in group["params"])):
            weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The state of each part."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()

    def _share_groups(self) -> None:
        """The same dictionaries here as in the parts, so that a schedule that changes a rate here changes it there."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def _is_kernel(weight: Tensor) -> bool:
    """Kernels of a hidden convolution; the first one, which sees the pixels, is left to AdamW, as Jordan does."""
    return weight.ndim > 2 and weight.shape[1] > 3
