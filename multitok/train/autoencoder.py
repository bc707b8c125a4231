"""Train an autoencoder end to end: one optimiser step at a time, resumable, the same for the same seed and batches.

The loss is the root mean squared error of each crop, so that a busy crop does not drown a smooth one (their mean is
close to mean PSNR), a little absolute error, and what the quantiser adds. Codebooks follow their vectors by exponential
moving averages; the weights that are exported are moving averages, too. Several ranks do to the bit the same on each,
and what one process does with all their crops up to rounding. This module imports torch.

Or the decoder alone is trained, on codes that stay as they are, from the integers that tokenizers run: a step costs
less, looking ahead for codes comes in, and every ID keeps its meaning.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from multitok.errors import JobError
from multitok.nets.autoencoder import Quantized, VqAutoencoder
from multitok.nets.freeze import freeze
from multitok.nets.integer import LATENT_SCALE, IntegerAutoencoder
from multitok.quantize import code_sums
from multitok.train.ranks import Ranks


class StepReport(NamedTuple):
    """What one step measured.

    Args:
        loss: The loss that was descended.
        psnr: Of the batch, in dB, before rounding to pixels.
        learning_rate: Of this step.
        num_codebooks: How many codebooks this step decoded.
        codes: [B, t, h, w, num_codebooks], of this rank.
    """

    loss: float
    psnr: float
    learning_rate: float
    num_codebooks: int
    codes: torch.Tensor


class AutoencoderTrainer:
    """Optimiser, moving averages and schedule around a model.

    Args:
        model: Fitted by `multitok.train.autoencoder_start.fit_start`, or loaded; changed in place, on any device.
        steps: Length of the schedule.
        seed: Fixes the codebook dropout.
        learning_rate: Its peak.
        dropout: Chance that a step decodes fewer than all codebooks, their number drawn evenly.
        decay: Of the codebooks' moving averages, per step.
        autocast: Run the nets in bfloat16; latents, codebooks and losses stay in float32.
        ranks: Who trains together; each with as many crops a step.
        only_decoder: Train the decoder on frozen codes.
        level_weights: How often the first 1, 2, ... K codebooks are decoded, in place of `dropout`; relative.
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
        ranks: Ranks | None = None,
        only_decoder: bool = False,
        level_weights: Sequence[float] = (),
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(model)
        self.steps, self.step_index = steps, 0
        self._ranks = ranks or Ranks()
        self._rng = np.random.default_rng(seed)
        self._learning_rate, self._dropout, self._decay, self._autocast = learning_rate, dropout, decay, autocast
        self._level_weights = tuple(level_weights)
        # What the codes come from where they are frozen, from the first step on.
        self._only_decoder = only_decoder
        self._frozen: IntegerAutoencoder | None = None
        self._parameters = list((model.decoder if only_decoder else model).parameters())
        self._optimizer = torch.optim.AdamW(self._parameters, learning_rate, betas=(0.9, 0.95), weight_decay=1e-4)
        self._counts: list[torch.Tensor | None] = [None] * model.config.num_codebooks
        self._sums: list[torch.Tensor | None] = [None] * model.config.num_codebooks

    def step(self, levels: torch.Tensor) -> StepReport:
        """One optimiser step.

        Args:
            levels: [B, T, H, W, C] float32.

        Returns:
            What it measured, over all ranks.

        Raises:
            JobError: The loss is no longer finite.
        """
        rate = self._rate()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        n = self._draw()
        quantized = None
        if not self._only_decoder:
            decoded, quantized = self.model(levels, n, self._autocast)
            codes = quantized.codes
        else:
            if self._frozen is None:
                self._frozen = freeze(copy.deepcopy(self.model).cpu())
            codes, latents = _codes_and_latents(self._frozen, levels, n)
            decoded = self.model.reconstruct(latents, self._autocast)
        error = decoded - levels
        squared = error.square().flatten(1).mean(1)
        loss = (squared + 1).sqrt().mean() + 0.1 * error.abs().mean()
        if quantized is not None:
            loss = loss + 0.25 * ((quantized.commitment + 1).sqrt() + (quantized.prediction_error + 1).sqrt()).mean()
        measured = self._ranks.mean([float(loss.detach()), float(squared.detach().mean())], levels.device)
        if not math.isfinite(measured[0]):
            raise JobError(
                f"step {self.step_index}: the loss is {measured[0]}; training diverged. Go on from an earlier "
                "checkpoint with a lower learning rate, or in fp32"
            )
        self._optimizer.zero_grad()
        loss.backward()
        self._ranks.average_gradients(self._parameters)
        torch.nn.utils.clip_grad_norm_(self._parameters, 10.0)
        self._optimizer.step()
        if quantized is not None:
            self._move_codebooks(quantized)
        self.step_index += 1
        self._average()
        psnr = -10 * math.log10(max(measured[1], 1e-9) / 255**2)
        return StepReport(measured[0], psnr, rate, n, codes)

    def _draw(self) -> int:
        """How many codebooks a step decodes."""
        all_of_them = self.model.config.num_codebooks
        if self._level_weights:
            share = np.array(self._level_weights, np.float64)
            return 1 + int(self._rng.choice(all_of_them, p=share / share.sum()))
        fewer = self._rng.random() < self._dropout
        return int(self._rng.integers(1, all_of_them + 1)) if fewer else all_of_them

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
            # Exact sums over the crops of all ranks, so that no rank drifts from the others.
            times, added = code_sums(residual.reshape(-1, d), index, len(rows), group=self._ranks.count > 1)
            share = float(times.sum()) / len(rows)
            counts, sums = self._counts[k], self._sums[k]
            if counts is None or sums is None:
                # As if every row had won its even share so far: rare rows then move slowly, not at random.
                counts = self._counts[k] = torch.full((len(rows),), share, device=rows.device)
                sums = self._sums[k] = rows * counts[:, None]
            # Rows that won nothing keep count and sum: their mean stays, and rare classes do not fade away.
            won = times.nonzero()[:, 0]
            often = times[won].float() / share
            keep = self._decay ** often.clamp(max=100)
            counts[won] = counts[won] * keep + times[won] * (1 - keep) / often
            sums[won] = sums[won] * keep[:, None] + added[won].float() * ((1 - keep) / often)[:, None]
            rows[won] = sums[won] / counts[won, None]

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(0.999, 1 - 1 / (self.step_index + 1))
        for mine, averaged in zip(self.model.parameters(), self.averaged.parameters(), strict=True):
            averaged.lerp_(mine, 1 - keep)
        for buffer, copied in zip(self.model.buffers(), self.averaged.buffers(), strict=True):
            copied.copy_(buffer)

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

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another trainer with the same arguments was.

        Args:
            state: What its `state_dict` gave.
        """
        self.step_index = state["step_index"]
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        self._frozen = None
        optimizer = state["optimizer"]
        moments = {
            # Laid out in memory like the parameter, as the optimiser made them: another layout may round otherwise.
            index: {
                key: torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
                for key, value in optimizer["state"][index].items()
            }
            for index, parameter in enumerate(self._parameters)
            if index in optimizer["state"]
        }
        self._optimizer.load_state_dict({"state": moments, "param_groups": optimizer["param_groups"]})
        device = self.model.basis.device
        self._counts = [None if each is None else each.to(device) for each in state["counts"]]
        self._sums = [None if each is None else each.to(device) for each in state["sums"]]
        self._rng.bit_generator.state = state["rng"]


def _codes_and_latents(net: IntegerAutoencoder, levels: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first n codes of each crop and what they decode to within the latents."""
    codes = [net.encode_levels(crop, n) for crop in levels.cpu().numpy().astype(np.int16)]
    latents = np.stack([net.dequantize(each) for each in codes]).astype(np.float32) / LATENT_SCALE
    device = levels.device
    return torch.from_numpy(np.stack(codes).astype(np.int64)).to(device), torch.from_numpy(latents).to(device)
