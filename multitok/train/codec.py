"""Train a codec end to end: one optimiser step at a time, resumable, the same for the same seed and sound.

    before the first step   log mel energies pass through the latents by their principal components, the decoder is a
                            vocoder's, and k-means starts the codebooks: what it learns begins at a spectrogram codec
    then                    the codebooks follow their vectors by moving averages, and every clip is decoded from its
                            own number of first codebooks

The loss is that of spectra at several resolutions, audible disturbance and lost intelligibility
(`multitok.train.audio_losses`), and the latents' distance to what they are quantised to; clips count alike, however
quiet. What is exported are moving averages of the
weights. With a teacher, the first codebook learns what a semantic tokenizer knows. This module imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from multitok.nets.codec import Codec
from multitok.nets.codec_config import CodecConfig
from multitok.nets.vocoder_module import Vocoder
from multitok.protocol import TokenizerSpec, Waveform
from multitok.train.audio_losses import IntelligibilityLoss, PerceptualLoss, multi_resolution_loss
from multitok.train.averaged_trainer import AveragedTrainer, Recipe
from multitok.train.codec_presets import CodecPreset

RECIPE = Recipe()
# Clips are compared at this level (root mean square), so that quiet ones count as much.
COMPARED_LEVEL, QUIETEST = 0.1, 1e-4
# Domains of the random numbers.
_LEVELS, _START = 1, 2


class Teacher(Protocol):
    """What the first codebook is to know: a semantic tokenizer, such as `AudioSemantic`."""

    @property
    def spec(self) -> TokenizerSpec:
        """Rate and stride of the features' frames."""

    def features(self, wave: Waveform, /) -> NDArray[np.float32]:
        """[F, T], one frame a stride."""


class CodecTrainer(AveragedTrainer[Codec]):
    """Optimisers, moving averages and schedule around a codec.

    Args:
        model: New, or thawed from a checkpoint; changed in place, on any device.
        preset: Losses and rates.
        draw: Clips [B, `preset.clip_samples`] of a step, the same whenever it is asked.
        steps: Length of the schedule.
        seed: Fixes numbers of codebooks and the start.
        learning_rate: In place of the preset's; Muon's changes in proportion.
        autocast: Run the nets in bfloat16; latents, codebooks and losses stay in float32.
        vocoder: What a new model's decoder starts from.
        teacher: What the first codebook learns from.
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
        vocoder: Vocoder | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        share = 1.0 if learning_rate is None else learning_rate / preset.learning_rate
        self._preset, self._draw, self._seed, self._autocast = preset, draw, seed, autocast
        self._vocoder, self._teacher, self._device = vocoder, teacher, model.mel_mean.device
        self._perceptual = PerceptualLoss(model.config.sample_rate_hz).to(self._device)
        self._intelligible = IntelligibilityLoss(model.config.sample_rate_hz).to(self._device)
        self._projection = None if teacher is None else _projection(model.config, teacher, seed).to(self._device)
        super().__init__(
            model,
            RECIPE,
            steps=steps,
            matrix_rate=preset.matrix_rate * share,
            learning_rate=preset.learning_rate * share,
            more=() if self._projection is None else self._projection.parameters(),
        )

    def step(self) -> dict[str, float]:
        """One optimiser step; before the first one, the start.

        Returns:
            What it measured, by name.

        Raises:
            JobError: The loss is no longer finite.
            SpecError: The vocoder cannot start this model.
        """
        if not self.model.is_started:
            self._start()
        return self._descend(self._losses(self._draw(self.step_index)))

    @torch.no_grad()
    def measure(self, samples: Tensor) -> dict[str, float]:
        """The losses of the averaged weights, with all codebooks and with half of them.

        Args:
            samples: [B, `preset.clip_samples`] held-out clips.

        Returns:
            "loss" of all codebooks, and what it consists of.
        """
        if not self.averaged.is_started:
            self._start()
        found: dict[str, float] = {}
        total = self.model.config.num_codebooks
        latents = self.averaged.latents(samples, autocast=self._autocast, cut=True)
        for count in sorted({total, -(-total // 2)}):
            decoded = self.averaged.quantizer(latents, count).quantized
            losses = self._sound_losses(self.averaged, decoded, samples)
            found |= {f"{name}, {count} codebooks": float(value) for name, value in losses.items()}
            found["loss"] = float(torch.stack(list(losses.values())).sum())
        return found

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        state = super().state_dict()
        if self._projection is not None:
            state["projection"] = self._projection.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Go on where another trainer with the same arguments was.

        Args:
            state: What its `state_dict` gave.
        """
        super().load_state_dict(state)
        if self._projection is not None:
            self._projection.load_state_dict(state["projection"])

    def _losses(self, samples: Tensor) -> dict[str, Tensor]:
        """The weighted terms of the loss."""
        latents = self.model.latents(samples, autocast=self._autocast, cut=True)
        found = self.model.quantizer(latents, self._num_codebooks(len(samples)))
        losses = self._sound_losses(self.model, found.quantized, samples)
        scale = latents.detach().square().mean() + 1e-6
        error = (latents - found.quantized.detach()).square().mean()
        losses["commitment"] = self._preset.commitment_weight * error / scale
        if self._teacher is not None:
            # As it is after this step's update of the codebook: so close that it makes no difference.
            first = self.model.levels[0].decode(found.codes[..., :1])
            losses["semantic"] = self._preset.semantic_weight * self._semantic(latents, first, samples)
        return losses

    def _sound_losses(self, model: Codec, latents: Tensor, samples: Tensor) -> dict[str, Tensor]:
        made = model.reconstruct(latents, autocast=self._autocast, cut=True)
        wanted = samples[:, : made.shape[1]]
        level = wanted.square().mean(1, keepdim=True).sqrt() + QUIETEST
        pair = made / level * COMPARED_LEVEL, wanted / level * COMPARED_LEVEL
        preset = self._preset
        return {
            "spectral": preset.spectral_weight * multi_resolution_loss(*pair, phase=preset.phase_weight),
            "audible": preset.perceptual_weight * self._perceptual(*pair),
            "unintelligible": preset.intelligibility_weight * self._intelligible(*pair),
        }

    def _semantic(self, latents: Tensor, first: Tensor, samples: Tensor) -> Tensor:
        """-log sigmoid of the cosine, over time, between the projected first code vectors and the features.

        Source: Zhang et al. 2024, "SpeechTokenizer", eq. 1.
        """
        assert self._projection is not None
        quantized = latents + (first - latents).detach()
        wanted = self._features(samples, latents.shape[1])
        cosine = functional.cosine_similarity(self._projection(quantized), wanted, dim=1)
        return -functional.logsigmoid(cosine).mean()

    def _features(self, samples: Tensor, count: int) -> Tensor:
        """[B, count, T] the teacher's features, of each frame of the codec those of the frame around its middle."""
        assert self._teacher is not None
        config, spec = self.model.config, self._teacher.spec
        assert spec.sample_rate_hz is not None
        middles_s = (np.arange(count) + 0.5) / float(config.frame_rate_hz)
        index = (middles_s * spec.sample_rate_hz / spec.stride[0]).astype(np.intp)
        found = []
        for clip in samples.cpu().numpy():
            features = self._teacher.features(Waveform(clip, config.sample_rate_hz))
            found.append(features[np.minimum(index, len(features) - 1)])
        return torch.from_numpy(np.stack(found).astype(np.float32)).to(samples.device)

    @torch.no_grad()
    def _start(self) -> None:
        """Start the nets and then the codebooks from clips of steps that are never trained on."""
        batches = [self._draw(self.steps + number) for number in range(self._preset.start_batches)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed * 8 + _START)
            self.model.start_nets(torch.cat(batches), self._vocoder)
        latents = [self.model.latents(batch, autocast=self._autocast, cut=True) for batch in batches]
        self.model.start_codebooks(torch.cat(latents))
        self.averaged.load_state_dict(self.model.state_dict())

    def _num_codebooks(self, batch: int) -> Tensor:
        rng = np.random.default_rng([self._seed, _LEVELS, self.step_index])
        weights = np.array(self._preset.level_weights or [1.0] * self.model.config.num_codebooks)
        return torch.from_numpy(rng.choice(len(weights), batch, p=weights / weights.sum()) + 1).to(self._device)


def _projection(config: CodecConfig, teacher: Teacher, seed: int) -> nn.Linear:
    """From latents to the teacher's features."""
    silence = Waveform(np.zeros(config.sample_rate_hz, np.float32), config.sample_rate_hz)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(config.latent_dim, teacher.features(silence).shape[1])
