"""Train a vocoder: one optimiser step at a time, resumable, the same for the same seed and sound.

    clips -> mel energies -> half of them as the tokenizer's codes give them back, all of them shaken a little
          -> vocoder -> clips;  loss: spectra at several resolutions, audible disturbance, lost intelligibility

So the vocoder learns to live with what quantisation leaves. Clips count alike, however quiet. What is exported are
moving averages of the weights. Muon trains the matrices of the blocks, AdamW the rest. This module imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multitok.frontend.spectrogram import MelSpectrogram
from multitok.nets.vocoder_module import Vocoder
from multitok.train.audio_losses import IntelligibilityLoss, PerceptualLoss, multi_resolution_loss
from multitok.train.averaged_trainer import AveragedTrainer, Recipe

RECIPE = Recipe()
# Of Muon, in proportion to that of AdamW.
MATRIX_RATE_RATIO = 10.0
# The second follows PESQ's raw score, the third STOI; each alone is learnt at the cost of the others.
SPECTRAL_WEIGHT, AUDIBLE_WEIGHT, UNINTELLIGIBLE_WEIGHT = 2.0, 0.3, 6.0
# Clips are compared at this level (root mean square), so that quiet ones count as much.
COMPARED_LEVEL, QUIETEST = 0.1, 1e-4
# Energies are multiplied by 10^n, n normal with a deviation of up to this much.
MOST_SHAKE_LOG10 = 0.12
# Domains of the random numbers.
_SHAKE = 0

Energies = NDArray[np.float64]


class Batch(NamedTuple):
    """Clips and what the vocoder makes them of.

    Args:
        samples: [B, F * hop].
        energies: [B, F + L, M], L frames of look-ahead.
    """

    samples: Tensor
    energies: Tensor


class VocoderTrainer(AveragedTrainer[Vocoder]):
    """Optimisers, moving averages and schedule around a vocoder.

    Args:
        model: New, or thawed from a checkpoint; changed in place, on any device.
        draw: The batch of a step, the same whenever it is asked.
        steps: Length of the schedule.
        seed: Fixes how energies are shaken.
        learning_rate: Peak of AdamW's.
        autocast: Run the net in bfloat16.
    """

    def __init__(
        self,
        model: Vocoder,
        draw: Callable[[int], Batch],
        *,
        steps: int,
        seed: int = 0,
        learning_rate: float = 2e-3,
        autocast: bool = True,
    ) -> None:
        matrix_rate = MATRIX_RATE_RATIO * learning_rate
        super().__init__(model, RECIPE, steps=steps, matrix_rate=matrix_rate, learning_rate=learning_rate)
        self._draw, self._seed, self._autocast = draw, seed, autocast
        self._perceptual = PerceptualLoss(model.config.sample_rate_hz).to(model.prior.device)
        self._intelligible = IntelligibilityLoss(model.config.sample_rate_hz).to(model.prior.device)

    def step(self) -> dict[str, float]:
        """One optimiser step.

        Returns:
            What it measured, by name.

        Raises:
            JobError: The loss is no longer finite.
        """
        samples, energies = self._draw(self.step_index)
        losses = self._losses(self.model, samples, energies * 10 ** self._shake(energies))
        return {**self._descend(losses), "learning rate": self._learning_rate}

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, float]:
        """The losses of the averaged weights.

        Args:
            batch: Held-out sound.
        """
        losses = self._losses(self.averaged, *batch)
        return {"loss": float(sum(losses.values())), **{name: float(value) for name, value in losses.items()}}

    def _losses(self, model: Vocoder, samples: Tensor, energies: Tensor) -> dict[str, Tensor]:
        made = model(energies, self._autocast)
        level = samples.square().mean(1, keepdim=True).sqrt() + QUIETEST
        pair = made / level * COMPARED_LEVEL, samples / level * COMPARED_LEVEL
        return {
            "spectral": SPECTRAL_WEIGHT * multi_resolution_loss(*pair),
            "audible": AUDIBLE_WEIGHT * self._perceptual(*pair),
            "unintelligible": UNINTELLIGIBLE_WEIGHT * self._intelligible(*pair),
        }

    def _shake(self, energies: Tensor) -> Tensor:
        rng = np.random.default_rng([self._seed, _SHAKE, self.step_index])
        strength = rng.uniform(0, MOST_SHAKE_LOG10, (len(energies), 1, 1)).astype(np.float32)
        noise = rng.standard_normal(tuple(energies.shape), np.float32) * strength
        return torch.from_numpy(noise).to(energies.device)


def batch_of(
    clips: NDArray[np.float32],
    model: Vocoder,
    mel: MelSpectrogram,
    requantize: Callable[[Energies], Energies],
) -> Batch:
    """What is trained or measured on; the first half of the clips as they are, the others requantised.

    Args:
        clips: [B, N], N = `clip_samples`.
        model: For its hop and look-ahead.
        mel: The spectrogram that it reads.
        requantize: Energies [F, M] to those that a tokenizer's codes give back.
    """
    config, device = model.config, model.prior.device
    ahead = config.net.lookahead * config.net.unstack
    count = (clips.shape[1] - mel.window_length) // config.hop_length
    energies = [mel.energies(clip)[: count + ahead] for clip in clips]
    energies[len(clips) // 2 :] = [requantize(each) for each in energies[len(clips) // 2 :]]
    return Batch(
        torch.from_numpy(clips[:, : count * config.hop_length].copy()).to(device),
        torch.from_numpy(np.stack(energies).astype(np.float32)).to(device),
    )


def clip_samples(num_frames: int, mel: MelSpectrogram) -> int:
    """N: samples of a clip of F frames, with so much more that the frames ahead are of sound and not of silence."""
    return num_frames * mel.hop_length + mel.window_length
