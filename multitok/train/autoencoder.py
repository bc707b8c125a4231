"""Train an autoencoder end to end: one optimiser step at a time, resumable, the same for the same seed and batches.

The loss is the root mean squared error of each crop, so that a busy crop does not drown a smooth one (their mean is
close to mean PSNR), a little absolute error, and what the quantiser adds. Codebooks follow their vectors by exponential
moving averages; the weights that are exported are moving averages, too.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import numpy as np
import torch

from multitok.nets.autoencoder import Quantized, VqAutoencoder


class StepReport(NamedTuple):
    """What one step measured.

    Args:
        loss: The loss that was descended.
        psnr: Of the batch, in dB, before rounding to pixels.
        learning_rate: Of this step.
        num_codebooks: How many codebooks this step decoded.
    """

    loss: float
    psnr: float
    learning_rate: float
    num_codebooks: int


class AutoencoderTrainer:
    """Optimiser, moving averages and schedule around a model.

    Args:
        model: Fitted by `multitok.train.autoencoder_start.fit_start`, or loaded; changed in place.
        steps: Length of the schedule.
        seed: Fixes the codebook dropout.
        learning_rate: Its peak.
        dropout: Chance that a step decodes fewer than all codebooks, their number drawn evenly.
        decay: Of the codebooks' moving averages, per step.
        autocast: Run the nets in bfloat16; latents, codebooks and losses stay in float32.
    """

    def __init__(
        self,
        model: VqAutoencoder,
        *,
        steps: int,
        seed: int = 0,
        learning_rate: float = 1e-3,
        dropout: float = 0.5,
        decay: float = 0.9995,
        autocast: bool = True,
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(model)
        self.steps, self.step_index = steps, 0
        self._rng = np.random.default_rng(seed)
        self._learning_rate, self._dropout, self._decay, self._autocast = learning_rate, dropout, decay, autocast
        self._optimizer = torch.optim.AdamW(model.parameters(), learning_rate, betas=(0.9, 0.95), weight_decay=1e-4)
        self._counts: list[torch.Tensor | None] = [None] * model.config.num_codebooks
        self._sums: list[torch.Tensor | None] = [None] * model.config.num_codebooks

    def step(self, levels: torch.Tensor) -> StepReport:
        """One optimiser step.

        Args:
            levels: [B, T, H, W, C] float32.

        Returns:
            What it measured.
        """
        rate = self._rate()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        all_of_them = self.model.config.num_codebooks
        fewer = self._rng.random() < self._dropout
        n = int(self._rng.integers(1, all_of_them + 1)) if fewer else all_of_them
        decoded, quantized = self.model(levels, n, self._autocast)
        error = decoded - levels
        squared = error.square().flatten(1).mean(1)
        loss = (squared + 1.0).sqrt().mean() / 16 + 0.1 * error.abs().mean() / 16
        loss = loss + 0.1 * quantized.commitment_loss + 0.5 * quantized.context_loss
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self._move_codebooks(quantized)
        self.step_index += 1
        self._average()
        psnr = -10 * math.log10(float(squared.detach().mean()) / 255**2)
        return StepReport(float(loss.detach()), psnr, rate, n)

    def _rate(self) -> float:
        warm = min(1.0, (self.step_index + 1) / 100)
        done = min(self.step_index / self.steps, 1.0)
        return self._learning_rate * warm * (0.505 + 0.495 * math.cos(math.pi * done))

    @torch.no_grad()
    def _move_codebooks(self, quantized: Quantized) -> None:
        d = self.model.config.latent_dim
        for k, residual in enumerate(quantized.residuals):
            codebook = self.model.codebook(k)
            rows = codebook.view(-1, d)
            index = (quantized.tables[..., k] * codebook.shape[1] + quantized.codes[..., k]).reshape(-1)
            counts, sums = self._counts[k], self._sums[k]
            if counts is None or sums is None:
                # As if every row had won its even share so far: rare rows then move slowly, not at random.
                counts = self._counts[k] = torch.full((len(rows),), len(index) / len(rows))
                sums = self._sums[k] = rows * counts[:, None]
            # Rows that won nothing keep count and sum: their mean stays, and rare classes do not fade away.
            won, inverse, times = index.unique(return_inverse=True, return_counts=True)
            mean = torch.zeros(len(won), d).index_add_(0, inverse, residual.reshape(-1, d))
            keep = self._decay ** (times / (len(index) / len(rows))).clamp(max=100)
            counts[won] = counts[won] * keep + times * (1 - keep) / (times / (len(index) / len(rows)))
            sums[won] = sums[won] * keep[:, None] + mean * ((1 - keep) / (times / (len(index) / len(rows))))[:, None]
            rows[won] = sums[won] / counts[won, None]

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(0.999, 1 - 1 / (self.step_index + 1))
        for mine, averaged in zip(self.model.parameters(), self.averaged.parameters(), strict=True):
            averaged.lerp_(mine, 1 - keep)
        for mine, averaged in zip(self.model.buffers(), self.averaged.buffers(), strict=True):
            averaged.copy_(mine)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        return {
            "step_index": self.step_index,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "counts": self._counts,
            "sums": self._sums,
            "rng": self._rng.bit_generator.state,
        }
