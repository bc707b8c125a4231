"""Muon: momentum whose step is made orthogonal, for the matrices of a net. This module imports torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

# Coefficients of the quintic iteration, chosen for speed: singular values end between 0.7 and 1.2, not at 1.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """For 2-D parameters inside a net; everything else is for AdamW.

    Args:
        parameters: Matrices [out, in].
        learning_rate: Length of a step in each singular direction.
        momentum: Of the gradients' average.

    Source:
        Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks".
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float = 0.02, momentum: float = 0.95) -> None:
        super().__init__(list(parameters), {"lr": learning_rate, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step.

        Args:
            closure: Not used.
        """
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "average" not in state:
                    state["average"] = torch.zeros_like(parameter)
                average = state["average"].lerp_(parameter.grad, 1 - group["momentum"])
                direction = orthogonal(parameter.grad.lerp(average, group["momentum"]))
                rows, columns = parameter.shape
                parameter.add_(direction, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """About the nearest matrix with orthonormal rows or columns, by Newton and Schulz's iteration in bfloat16.

    Args:
        matrix: [R, C].

    Returns:
        [R, C] float32.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.bfloat16()
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        a = x @ x.T
        x = _A * x + (_B * a + _C * a @ a) @ x
    found: torch.Tensor = x.T if tall else x
    return found.float()


def split_parameters(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The matrices of causal blocks, which are Muon's, and all other parameters.

    Args:
        module: Holds causal nets.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        inside = parameter.ndim == 2 and "blocks." in name
        (matrices if inside else others).append(parameter)
    return matrices, others
