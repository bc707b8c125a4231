"""Figures over the last steps of a training: loss, speed, use of the codebooks. This module imports torch."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from multitok.train.autoencoder import StepReport
from multitok.train.watch import Moment


class StepMeter:
    """Adds up steps.

    Args:
        codebook_sizes: V of each codebook.
        values: Grid values (pixels, voxels) a step, over all ranks.
        steps: Steps of the whole run.
    """

    def __init__(self, codebook_sizes: Sequence[int], values: int, steps: int) -> None:
        self._sizes, self._values, self._steps = codebook_sizes, values, steps
        self._last: StepReport | None = None
        self._began = time.monotonic()
        self._seconds = 0.0
        self.forget()

    def forget(self) -> None:
        """Begin a new stretch."""
        self._counts = [torch.zeros(size, dtype=torch.int64) for size in self._sizes]
        self._losses: list[float] = []
        self._psnrs: list[float] = []
        self._seconds = 0.0
        self._began = time.monotonic()

    def skip(self) -> None:
        """The time since the last step was for something else."""
        self._began = time.monotonic()

    def add(self, report: StepReport) -> None:
        """One step more."""
        now = time.monotonic()
        self._seconds += now - self._began
        self._began = now
        self._losses.append(report.loss)
        self._psnrs.append(report.psnr)
        self._last = report
        for k in range(report.num_codebooks):
            self._counts[k] += torch.bincount(report.codes[..., k].reshape(-1).cpu(), minlength=self._sizes[k])

    def moment(self, step: int) -> Moment:
        """The stretch so far; at least one step has to be in it."""
        assert self._last is not None
        each = self._seconds / len(self._losses)
        usage, perplexity = [], []
        for counts in self._counts:
            share = counts.double() / counts.sum().clamp(min=1)
            usage.append(round(float((counts > 0).sum()) / len(counts), 4))
            perplexity.append(round(float(torch.special.entr(share).sum().exp()), 2))
        return Moment(
            step=step,
            steps=self._steps,
            loss=round(sum(self._losses) / len(self._losses), 5),
            psnr=round(sum(self._psnrs) / len(self._psnrs), 4),
            learning_rate=self._last.learning_rate,
            values_per_s=round(self._values / max(each, 1e-9), 1),
            seconds_left=round(each * (self._steps - step), 1),
            usage=tuple(usage),
            perplexity=tuple(perplexity),
        )
