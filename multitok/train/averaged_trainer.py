"""What the trainers of sound models have in common: optimisers, schedule, moving averages, state.

Muon trains the matrices of causal blocks, AdamW the rest. The learning rates warm up, stay, and fall in a straight
line. What is exported are moving averages of the weights. This module imports torch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from multitok.errors import JobError
from multitok.train.muon import Muon, split_parameters

# In proportion to the peak.
LEAST_RATE = 0.01
# Of the gradients of AdamW's parameters.
MOST_NORM = 1.0

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a kind of model is trained.

    Args:
        warm_steps: Until the learning rates are at their peak.
        flat_share: Part of the schedule after which they fall.
        most_kept: Of the moving averages, at each step.
        young_steps: The averages keep half at this step, and more from then on.
        weight_decay: Of AdamW.
    """

    warm_steps: int = 50
    flat_share: float = 0.3
    most_kept: float = 0.999
    young_steps: int = 19
    weight_decay: float = 0.0

    def rate(self, step_index: int, steps: int) -> float:
        """The learning rates at a step, in proportion to their peaks."""
        falling = min(1.0, (1 - step_index / steps) / (1 - self.flat_share))
        return max(min(1.0, (step_index + 1) / self.warm_steps) * falling, LEAST_RATE)

    def kept(self, step_index: int) -> float:
        """Share of the moving averages that stays, after so many steps."""
        return min(self.most_kept, step_index / (step_index + self.young_steps))


class AveragedTrainer(Generic[Net]):
    """A model, its moving averages and its optimisers; whoever derives from it has a step of its own, see `_descend`.

    Args:
        model: Changed in place, on any device.
        recipe: How it is trained.
        steps: Length of the schedule.
        matrix_rate: Peak of Muon's learning rate.
        learning_rate: Peak of AdamW's.
        more: Parameters outside the model that AdamW trains, too; `state_dict` leaves them to whoever derives.
    """

    def __init__(
        self,
        model: Net,
        recipe: Recipe,
        *,
        steps: int,
        matrix_rate: float,
        learning_rate: float,
        more: Iterable[nn.Parameter] = (),
    ) -> None:
        self.model, self.averaged = model.train(), copy.deepcopy(model).eval()
        self.steps, self.step_index = steps, 0
        self._recipe, self._peaks = recipe, (matrix_rate, learning_rate)
        matrices, others = split_parameters(model)
        self._others = [*others, *more]
        self._optimizers = {
            "matrices": Muon(matrices, matrix_rate),
            "others": torch.optim.AdamW(
                self._others, learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
            ),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {
            "step_index": self.step_index,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            **{name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on where another trainer with the same arguments was.

        Args:
            state: What its `state_dict` gave.
        """
        self.step_index = state["step_index"]
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state[name])

    @property
    def _learning_rate(self) -> float:
        """AdamW's, at the last step."""
        rate: float = self._optimizers["others"].param_groups[0]["lr"]
        return rate

    def _descend(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Change the weights and their averages.

        Args:
            losses: The weighted terms of the loss.

        Returns:
            Their sum, "loss", and they.

        Raises:
            JobError: The loss is no longer finite.
        """
        loss = torch.stack(list(losses.values())).sum()
        figures = {"loss": float(loss.detach()), **{name: float(value.detach()) for name, value in losses.items()}}
        if not math.isfinite(figures["loss"]):
            raise JobError(
                f"step {self.step_index}: the loss is {figures['loss']}; training diverged. Go on from an "
                "earlier state with a lower learning rate, or in fp32"
            )
        rate = self._recipe.rate(self.step_index, self.steps)
        for peak, optimizer in zip(self._peaks, self._optimizers.values(), strict=True):
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = peak * rate
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._others, MOST_NORM)
        for optimizer in self._optimizers.values():
            optimizer.step()
        self.step_index += 1
        self._average()
        return figures

    @torch.no_grad()
    def _average(self) -> None:
        kept = self._recipe.kept(self.step_index)
        for mine, averaged in zip(self.model.parameters(), self.averaged.parameters(), strict=True):
            averaged.lerp_(mine, 1 - kept)
        # Buffers hold codebooks, which move by averages of their own, and constants.
        for buffer, copied in zip(self.model.buffers(), self.averaged.buffers(), strict=True):
            copied.copy_(buffer)
