"""What the user of a training run chooses besides its preset. Imports no framework."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from multitok.errors import SpecError
from multitok.protocol import Json


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Choices of one training run; None leaves the choice to the preset or to what is measured.

    Args:
        seed: Fixes every draw.
        steps: Optimiser steps.
        minutes: About how long to train, start included, in place of `steps`: becomes a number of steps once the speed
            of this machine is measured, and is then part of the run.
        batch: Crops a step, on each rank.
        learning_rate: Its peak.
        held_out: How many items are kept out of training to measure on.
        eval_every: Steps between two measurements on them.
        save_every: Steps between two checkpoints of the run.
        patience: Stop once so many measurements in a row have not gained 0.01 dB; None never stops early.
        precision: "bf16" runs the nets in bfloat16 wherever that is safe, "fp32" never, "auto" where the processor has
            instructions for it.
        device: "cpu", "cuda" or "auto": the GPU where there is one.
        workers: Threads that read items; the result does not depend on them. 0 reads between the steps.
        tensorboard: Write TensorBoard files: "auto" where the package is installed, "on" or "off".

    Raises:
        SpecError: A value that cannot be.
    """

    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    batch: int | None = None
    learning_rate: float | None = None
    held_out: int | None = None
    eval_every: int = 250
    save_every: int = 250
    patience: int | None = None
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    device: str = "auto"
    workers: int = 2
    tensorboard: Literal["auto", "on", "off"] = "auto"

    def __post_init__(self) -> None:
        if self.steps is not None and self.minutes is not None:
            raise SpecError(f"steps={self.steps}, minutes={self.minutes}: give one of the two")
        for name in ("steps", "batch", "eval_every", "save_every", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SpecError(f"{name}={value}: give 1 or more")
        for name in ("seed", "held_out", "workers"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise SpecError(f"{name}={value}: give 0 or more")
        if self.minutes is not None and not self.minutes > 0:
            raise SpecError(f"minutes={self.minutes}: give more than 0")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise SpecError(f"learning_rate={self.learning_rate}: give a number between 0 and 1")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise SpecError(f"precision={self.precision!r}: give 'auto', 'bf16' or 'fp32'")
        if self.tensorboard not in ("auto", "on", "off"):
            raise SpecError(f"tensorboard={self.tensorboard!r}: give 'auto', 'on' or 'off'")

    def to_json(self) -> dict[str, Json]:
        """What the outcome depends on, as JSON values: not how it is watched, kept or read."""
        shown: dict[str, Any] = asdict(self)
        return {key: value for key, value in shown.items() if key not in ("workers", "tensorboard", "save_every")}
