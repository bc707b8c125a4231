"""Train a codec end to end: one optimiser step at a time, resumable, the same for the same seed and sound.

    steps before `start_step`   the nets alone, noise in place of quantisation
    then                        k-means starts the codebooks; they follow their vectors by moving averages, and every
                                clip is decoded from its own number of first codebooks

The loss is that of spectra at several resolutions, audible disturbance (`multitok.train.audio_losses`) and the latents'
distance to what they are quantised to; clips count alike, however quiet. What is exported are moving averages of the
weights. With a teacher, the first codebook learns what a semantic tokenizer knows. This module imports torch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from multitok.errors import JobError, SpecError
from multitok.nets.codec import Codec
from multitok.train.audio_losses import PerceptualLoss, multi_resolution_loss
from multitok.train.codec_presets import CodecPreset
from multitok.train.muon import Muon, split_parameters

WARM_STEPS, FLAT_SHARE, LEAST_RATE = 50, 0.3, 0.01
SPECTRAL_WEIGHT = 2.0
# Noise in place of quantisation, as a share of the latents' deviation.
NOISE = 0.1
# Clips are compared at this level (root mean square), so that quiet ones count as much.
COMPARED_LEVEL, QUIETEST = 0.1, 1e-4
# Domains of the random numbers.
_LEVELS, _NOISE, _TEACHER = 1, 2, 3


class Teacher(Protocol):
    """What the first codebook is to know: a semantic tokenizer's features."""

    def features(self, samples: NDArray[np.float32], /) -> NDArray[np.float32]:
        """[F, T] features of mono samples [N] at the codec's rate, one a hop of the codec: F = ceil(N / hop)."""


class CodecTrainer:
    """Optimisers, moving averages and schedule around a codec.

    Args:
        model: New, or thawed from a checkpoint; changed in place, on any device.
        preset: Losses and rates.
        draw: Clips [B, N] of a step, the same whenever it is asked.
        steps: Length of the schedule.
        seed: Fixes noise and numbers of codebooks.
        learning_rate: In place of the preset's; Muon's changes in proportion.
        autocast: Run the nets in bfloat16; latents, codebooks and losses stay in float32.
        teacher: What the first codebook learns from.

    Raises:
        SpecError: The teacher's features do not fit the codec's frames.
    """

    def __init__(
        self,
        model: Codec,
        preset: CodecPreset,
        draw: Callable[[int], Tensor],
        *,
        steps: int,
        seed: int = 0,
        learning_rate: float | None = None,
        autocast: bool = True,
        teacher: Teacher | None = None,
    ) -> None:
        self.model, self.averaged = model.train(), copy.deepcopy(model).eval()
        self.steps, self.step_index = steps, 0
        self._preset, self._draw, self._seed, self._autocast = preset, draw, seed, autocast
        self._perceptual = PerceptualLoss(model.config.sample_rate_hz).to(model.sine.device)
        self._teacher, self._projection = teacher, self._new_projection(teacher)
        share = 1.0 if learning_rate is None else learning_rate / preset.learning_rate
        matrices, others = split_parameters(model)
        self._others = others + ([] if self._projection is None else list(self._projection.parameters()))
        self._peaks = (preset.matrix_rate * share, preset.learning_rate * share)
        self._optimizers = {
            "matrices": Muon(matrices, self._peaks[0]),
            "others": torch.optim.AdamW(self._others, self._peaks[1], betas=(0.9, 0.98), weight_decay=0.0),
        }

    def step(self) -> dict[str, float]:
        """One optimiser step.

        Returns:
            What it measured, by name.

        Raises:
            JobError: The loss is no longer finite.
        """
        rate = self._rate()
        for peak, optimizer in zip(self._peaks, self._optimizers.values(), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * rate
        if not self.model.is_started and self.step_index >= self._preset.start_step:
            self._start_codebooks()
        samples = self._draw(self.step_index)
        losses = self._losses(samples)
        loss = torch.stack(list(losses.values())).sum()
        if not math.isfinite(float(loss.detach())):
            raise JobError(
                f"step {self.step_index}: the loss is {float(loss.detach())}; training diverged. Go on from an "
                "earlier state with a lower learning rate, or in fp32"
            )
        for optimizer in self._optimizers.values():
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._others, 1.0)
        for optimizer in self._optimizers.values():
            optimizer.step()
        self.step_index += 1
        self._average()
        measured = {name: float(value.detach()) for name, value in losses.items()}
        return {"loss": float(loss.detach()), **measured, "learning rate": self._peaks[1] * rate}

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        state: dict[str, Any] = {
            "step_index": self.step_index,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            **{name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
        }
        if self._projection is not None:
            state["projection"] = self._projection.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another trainer with the same arguments was.

        Args:
            state: What its `state_dict` gave.
        """
        self.step_index = state["step_index"]
        self.model.load_state_dict(state["model"])
        self.averaged.load_state_dict(state["averaged"])
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state[name])
        if self._projection is not None:
            self._projection.load_state_dict(state["projection"])

    def _losses(self, samples: Tensor) -> dict[str, Tensor]:
        """The weighted terms of the loss."""
        preset, model = self._preset, self.model
        latents = model.latents(samples, self._autocast)
        losses: dict[str, Tensor] = {}
        if model.is_started:
            found = model.quantizer(latents, self._num_codebooks(len(samples)))
            decoded = found.quantized
            scale = latents.detach().square().mean() + 1e-6
            losses["commitment"] = preset.commitment_weight * (latents - decoded.detach()).square().mean() / scale
            if self._teacher is not None:
                first = model.levels[0].decode(found.codes[..., :1])
                losses["semantic"] = preset.semantic_weight * self._semantic(latents, first, samples)
        else:
            decoded = latents + self._noise(latents) * (NOISE * latents.detach().std())
        parts = model.parts(decoded, self._autocast)
        made = model.overlap(parts)
        level = samples.square().mean(1, keepdim=True).sqrt() + QUIETEST
        pair = made / level * COMPARED_LEVEL, samples / level * COMPARED_LEVEL
        losses["spectral"] = SPECTRAL_WEIGHT * multi_resolution_loss(*pair, phase=preset.phase_weight)
        losses["envelope"] = preset.envelope_weight * model.envelope_loss(parts, samples)
        losses["audible"] = preset.perceptual_weight * self._perceptual(*pair)
        return losses

    def _semantic(self, latents: Tensor, first: Tensor, samples: Tensor) -> Tensor:
        """-log sigmoid of the cosine, over time, between the projected first code vectors and the features.

        Source: Zhang et al. 2024, "SpeechTokenizer", eq. 1.
        """
        assert self._projection is not None
        wanted = self._wanted(samples)
        quantized = latents + (first - latents).detach()
        cosine = functional.cosine_similarity(self._projection(quantized), wanted, dim=1)
        return -functional.logsigmoid(cosine).mean()

    def _wanted(self, samples: Tensor) -> Tensor:
        """[B, F, T] the teacher's features."""
        assert self._teacher is not None
        found = [self._teacher.features(clip) for clip in samples.cpu().numpy()]
        return torch.from_numpy(np.stack(found).astype(np.float32)).to(samples.device)

    def _new_projection(self, teacher: Teacher | None) -> nn.Linear | None:
        if teacher is None:
            return None
        config = self.model.config
        features = teacher.features(np.zeros(10 * config.hop_length, np.float32))
        if features.ndim != 2 or len(features) != 10:
            raise SpecError(
                f"the semantic tokenizer gives features {list(features.shape)} for 10 frames of the codec: take one "
                f"with {float(config.frame_rate_hz):g} frames a second at {config.sample_rate_hz} Hz"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed * 8 + _TEACHER)
            return nn.Linear(config.latent_dim, features.shape[1]).to(self.model.sine.device)

    @torch.no_grad()
    def _start_codebooks(self) -> None:
        """K-means on latents of fresh clips."""
        first = self.step_index + self.steps  # steps that are never trained on
        batches = [self._draw(first + number) for number in range(self._preset.start_batches)]
        self.model.start_codebooks(torch.cat([self.model.latents(batch, self._autocast) for batch in batches]))

    def _num_codebooks(self, batch: int) -> Tensor:
        rng = np.random.default_rng([self._seed, _LEVELS, self.step_index])
        weights = np.array(self._preset.level_weights or [1.0] * self.model.config.num_codebooks)
        return torch.from_numpy(rng.choice(len(weights), batch, p=weights / weights.sum()) + 1).to(
            self.model.sine.device
        )

    def _noise(self, like: Tensor) -> Tensor:
        rng = np.random.default_rng([self._seed, _NOISE, self.step_index])
        return torch.from_numpy(rng.standard_normal(tuple(like.shape), np.float32)).to(like.device)

    def _rate(self) -> float:
        done = self.step_index / self.steps
        falling = min(1.0, (1 - done) / (1 - FLAT_SHARE))
        return max(min(1.0, (self.step_index + 1) / WARM_STEPS) * falling, LEAST_RATE)

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(0.999, self.step_index / (self.step_index + 19))
        for mine, averaged in zip(self.model.parameters(), self.averaged.parameters(), strict=True):
            averaged.lerp_(mine, 1 - keep)
        for buffer, copied in zip(self.model.buffers(), self.averaged.buffers(), strict=True):
            copied.copy_(buffer)
