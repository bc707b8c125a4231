"""Train a student of speech units: one optimiser step at a time, resumable, the same for the same seed and data.

    speech -> disturbed energies -> causal net -> D values;  loss: distance to the teacher's targets, and how well the
                                                             units can be read off the values by linear maps

The targets come from the undisturbed speech, at the speed of the disturbed one. So the student answers alike however
loud a voice is, whoever's it is, and through whatever channel it comes. What is exported are moving averages of the
weights. Muon trains the matrices of the blocks, AdamW the rest. This module imports torch.

Shape letters: B clips, T frames, M mel bands, D values of a target, S clusterings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from multitok.frontend.log_mel import FLOOR
from multitok.frontend.spectrogram import MelSpectrogram, mel_filters
from multitok.nets.causal.config import CausalConfig
from multitok.nets.causal.module import CausalNet
from multitok.tokenizers.audio_semantic import FRAME_LENGTH
from multitok.train.averaged_trainer import AveragedTrainer, Recipe
from multitok.train.sound_pool import FULL_SCALE, SoundPool
from multitok.train.speech_disturbance import disturbed, played, speed_of
from multitok.train.student_data import StudentData, Voice

RECIPE = Recipe(warm_steps=60, flat_share=0.35, most_kept=0.9985, young_steps=9, weight_decay=0.01)
# Of Muon, in proportion to that of AdamW.
MATRIX_RATE_RATIO = 5.0
# Weights of the loss: distance to the targets, and each clustering, the smallest first.
REGRESSION_WEIGHT, UNIT_WEIGHTS = 4.0, (0.3, 0.5, 0.25)
# Voices are drawn in proportion to this power of their lengths.
LENGTH_POWER = 0.75
# The end of each voice is measured on and not trained on.
HELD_OUT_SHARE = 0.03
# Domains of the random numbers.
_STEP, _HELD_OUT = range(2)


class Student(nn.Module):
    """The net, and the linear maps by which units are read off its values in training.

    Args:
        config: Shape of the net.
        sizes: Units of each clustering.
    """

    def __init__(self, config: CausalConfig, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.net = CausalNet(config)
        self.readers = nn.ModuleList(nn.Linear(config.out_dim, size) for size in sizes)


class Batch(NamedTuple):
    """Clips and what is to be made of them.

    Args:
        rows: [B, 2 T, M] log energies.
        targets: [B, T, D].
        units: [B, T, S]; -1 where there is no target.
    """

    rows: Tensor
    targets: Tensor
    units: Tensor


class Clips:
    """Draws clips of speech from the data, disturbed or not.

    Args:
        data: Speech and targets.
        mel: Energies that the net reads.
        others: Other sound to mix in; None for speech alone.
        clip_frames: T.
        batch: B.
        seed: Fixes every draw.
    """

    def __init__(
        self,
        data: StudentData,
        mel: MelSpectrogram,
        others: SoundPool | None,
        *,
        clip_frames: int,
        batch: int,
        seed: int = 0,
    ) -> None:
        self._data, self._others = data, others
        self._frames, self._batch, self._seed = clip_frames, batch, seed
        self._mel = mel
        self._window = torch.from_numpy(mel.window).float()
        self._filters = torch.from_numpy(mel_filters(mel.sample_rate_hz, mel.fft_length, mel.num_mels)).float()
        held = [int(voice.num_frames * HELD_OUT_SHARE) for voice in data.voices]
        self._training = [
            Voice(each.name, each.first, each.num_frames - n) for each, n in zip(data.voices, held, strict=True)
        ]
        self._held_out = [
            Voice(each.name, each.first + each.num_frames - n, n)
            for each, n in zip(data.voices, held, strict=True)
            if n
        ]

    def draw(self, step: int) -> Batch:
        """The batch of a step, disturbed."""
        rng = np.random.default_rng([self._seed, _STEP, step])
        samples, targets, units = self._speech(self._training, self._batch, rng, faster=True)
        energies = self._energies(samples)
        others = energies
        if self._others is not None:
            clips = self._others.clips(step, self._batch, self._frames * FRAME_LENGTH, seed=self._seed)
            others = self._energies(torch.from_numpy(clips))
        return Batch(_logarithms(disturbed(energies, others, rng)), targets, units)

    def held_out(self, count: int) -> Batch | None:
        """Clips that are never trained on, as they are; None where voices are too short to spare any.

        Args:
            count: How many.
        """
        if not self._held_out or not count:
            return None
        rng = np.random.default_rng([self._seed, _HELD_OUT])
        samples, targets, units = self._speech(self._held_out, count, rng, faster=False)
        return Batch(_logarithms(self._energies(samples)), targets, units)

    def _speech(
        self, voices: list[Voice], count: int, rng: np.random.Generator, *, faster: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        weights = np.array([voice.num_frames for voice in voices], np.float64) ** LENGTH_POWER
        chosen = rng.choice(len(voices), count, p=weights / weights.sum())
        length, data = self._frames, self._data
        samples = np.zeros((count, length * FRAME_LENGTH), np.float32)
        targets = np.zeros((count, length, data.targets.shape[1]), np.float32)
        units = np.full((count, length, data.units.shape[1]), -1, np.int64)
        for clip, voice in enumerate(voices[number] for number in chosen.tolist()):
            speed = speed_of(rng) if faster else 1.0
            needed = min(math.ceil(length * speed), voice.num_frames)
            first = voice.first + int(rng.integers(voice.num_frames - needed + 1))
            given = data.speech[first * FRAME_LENGTH : (first + needed) * FRAME_LENGTH].astype(np.float32)
            samples[clip] = played(given / np.float32(FULL_SCALE), speed, samples.shape[1])
            # Where the middle of each frame lies among the voice's frames.
            place = (np.arange(length) + 0.5) * speed - 0.5
            known = (place >= 0) & (place <= needed - 1)
            below = np.clip(place.astype(np.intp), 0, max(needed - 2, 0)) + first
            share = (place - (below - first)).astype(np.float32)[:, None]
            above = np.minimum(below + 1, first + needed - 1)
            targets[clip] = (1 - share) * data.targets[below] + share * data.targets[above]
            nearest = data.units[first + np.clip(np.rint(place).astype(np.intp), 0, needed - 1)]
            units[clip] = np.where(known[:, None], nearest, -1)
        return torch.from_numpy(samples), torch.from_numpy(targets), torch.from_numpy(units)

    def _energies(self, samples: Tensor) -> Tensor:
        # As MelSpectrogram, in float32.
        mel = self._mel
        padded = functional.pad(samples, (mel.lead, mel.lead))
        frames = padded.unfold(-1, mel.window_length, mel.hop_length) * self._window
        spectrum = torch.fft.rfft(frames, mel.fft_length)
        energies: Tensor = (spectrum.real.square() + spectrum.imag.square()) @ self._filters.T
        return energies


class StudentTrainer(AveragedTrainer[Student]):
    """Optimisers, moving averages and schedule around a student.

    Args:
        model: New; changed in place, on any device.
        draw: The batch of a step, the same whenever it is asked.
        steps: Length of the schedule.
        learning_rate: Peak of AdamW's.
        autocast: Run the net in bfloat16.
    """

    def __init__(
        self,
        model: Student,
        draw: Callable[[int], Batch],
        *,
        steps: int,
        learning_rate: float = 2e-3,
        autocast: bool = True,
    ) -> None:
        matrix_rate = MATRIX_RATE_RATIO * learning_rate
        super().__init__(model, RECIPE, steps=steps, matrix_rate=matrix_rate, learning_rate=learning_rate)
        self._draw, self._autocast = draw, autocast

    def step(self) -> dict[str, float]:
        """One optimiser step.

        Returns:
            What it measured, by name.

        Raises:
            JobError: The loss is no longer finite.
        """
        losses = self._losses(self.model, self._draw(self.step_index))
        return {**self._descend(losses), "learning rate": self._learning_rate}

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, float]:
        """The losses of the averaged weights.

        Args:
            batch: Held-out speech.
        """
        losses = self._losses(self.averaged, batch)
        return {"loss": float(sum(losses.values())), **{name: float(value) for name, value in losses.items()}}

    def _losses(self, model: Student, batch: Batch) -> dict[str, Tensor]:
        """The weighted terms of the loss."""
        device = next(model.parameters()).device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._autocast):
            made = model.net(batch.rows.to(device))
        # Output t + lookahead answers for frame t.
        late = model.net.config.lookahead
        made = made.float()[:, late:]
        targets, units = (each.to(device)[:, : made.shape[1]] for each in (batch.targets, batch.units))
        known = units[..., 0] >= 0
        made, targets, units = made[known], targets[known], units[known]
        losses = {"regression": REGRESSION_WEIGHT * (made - targets).square().mean()}
        weights = UNIT_WEIGHTS[: len(model.readers)]
        for column, (reader, weight) in enumerate(zip(model.readers, weights, strict=True)):
            entropy = functional.cross_entropy(reader(made), units[:, column])
            losses[f"units {reader.out_features}"] = weight * entropy
        return losses


def _logarithms(energies: Tensor) -> Tensor:
    # As LogMel, off its grid.
    return (energies.clamp(min=FLOOR).log10() + 4) / 2
