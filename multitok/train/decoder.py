"""Train the decoder alone, on codes that no longer move: quick, stable, and it leaves every ID as it is.

With the codes frozen, what they decode to is computed once, in the integers that tokenizers run, and read ever after.
A step then costs the decoder and nothing else. On a budget of minutes to hours this brings more than moving the
codebooks, the contexts and the encoder along (docs/training.md has the curves).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.nets.autoencoder import VqAutoencoder
from multitok.nets.integer import LATENT_SCALE, IntegerAutoencoder


def decoded_latents(
    net: IntegerAutoencoder, crops: NDArray[np.int16], counts: Sequence[int]
) -> dict[int, NDArray[np.int16]]:
    """What crops decode to within the latents, for several numbers of codebooks.

    Args:
        net: Frozen; its decoder is not used.
        crops: [N, T, H, W, C] levels, T, H and W multiples of the patch.
        counts: Numbers of codebooks.

    Returns:
        For each number [N, t, h, w, D] in units of 1 / LATENT_SCALE level.
    """
    pt, ph, pw = net.config.patch
    n, t, h, w, _ = crops.shape
    shape = (n, t // pt, h // ph, w // pw, net.config.latent_dim)
    found = {count: np.empty(shape, np.int16) for count in counts}
    for index, levels in enumerate(crops):
        codes = net.encode_levels(levels)
        for count, latents in found.items():
            latents[index] = net.dequantize(codes[..., :count])
    return found


class DecoderTrainer:
    """Optimiser, moving average and schedule around a model's decoder.

    Args:
        model: Its decoder is changed in place, nothing else.
        steps: Length of the schedule.
        seed: Fixes the draws.
        learning_rate: Its peak.
        autocast: Run the decoder in bfloat16.

    Raises:
        SpecError: A number is out of its range.
    """

    def __init__(
        self,
        model: VqAutoencoder,
        *,
        steps: int,
        seed: int = 0,
        learning_rate: float = 1e-3,
        autocast: bool = True,
    ) -> None:
        if steps < 1 or learning_rate <= 0:
            raise SpecError(f"steps={steps}, learning_rate={learning_rate}: give at least 1 and more than 0")
        self.model = model.to(memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(model)
        self.step_index = 0
        self._steps, self._learning_rate, self._autocast = steps, learning_rate, autocast
        self._rng = np.random.default_rng(seed)
        self._optimizer = torch.optim.AdamW(
            model.decoder.parameters(), learning_rate, betas=(0.9, 0.95), weight_decay=1e-4
        )

    def step(
        self,
        crops: NDArray[np.int16],
        latents: dict[int, NDArray[np.int16]],
        weights: dict[int, float],
        batch: int,
    ) -> float:
        """One step on a batch drawn from the crops, all decoded from the same number of codebooks.

        Args:
            crops: [N, T, H, W, C] levels.
            latents: Of `decoded_latents`.
            weights: How often each number of codebooks is drawn.
            batch: Crops in a batch.

        Returns:
            PSNR of the batch in dB, before rounding to pixels.
        """
        done = min(self.step_index / self._steps, 1.0)
        warm = min(1.0, (self.step_index + 1) / 100)
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate * warm * (0.505 + 0.495 * math.cos(math.pi * done))
        share = np.array(list(weights.values()), np.float64)
        count = list(weights)[int(self._rng.choice(len(share), p=share / share.sum()))]
        chosen = np.sort(self._rng.choice(len(crops), batch, replace=False))
        levels = torch.from_numpy(crops[chosen].astype(np.float32))
        decoded = torch.from_numpy(latents[count][chosen].astype(np.float32)) / LATENT_SCALE
        error = self.model.reconstruct(decoded, self._autocast) - levels
        squared = error.square().flatten(1).mean(1)
        loss = (squared + 1).sqrt().mean() + 0.1 * error.abs().mean()
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.decoder.parameters(), 10.0)
        self._optimizer.step()
        self.step_index += 1
        self._average()
        return -10 * math.log10(max(float(squared.detach().mean()), 1e-9) / 255**2)

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(0.999, 1 - 1 / (self.step_index + 1))
        pairs = zip(self.model.decoder.parameters(), self.averaged.decoder.parameters(), strict=True)
        for mine, averaged in pairs:
            averaged.lerp_(mine, 1 - keep)
