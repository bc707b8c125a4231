"""Audible disturbance beside PESQ and lost intelligibility beside STOI; scales, silence and gradients."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch
from numpy.typing import NDArray

from multitok.errors import ShapeError, SpecError
from multitok.frontend import media
from multitok.frontend.resample import to_mono
from multitok.protocol import Waveform
from multitok.train.audio_losses import IntelligibilityLoss, PerceptualLoss

SOUNDS = Path(__file__).parents[2] / "examples/data/sounds"
RATE_HZ = 16_000
LOSSES = [PerceptualLoss(), IntelligibilityLoss()]


@cache
def _sound(name: str) -> NDArray[np.float32]:
    wave = media.read(SOUNDS / name)
    assert isinstance(wave, Waveform)
    return to_mono(wave, RATE_HZ)[: 2 * RATE_HZ]


def _noisy(clip: NDArray[np.float32], snr_db: float) -> NDArray[np.float32]:
    noise = np.random.default_rng(0).standard_normal(clip.size)
    return (clip + noise * clip.std() * 10 ** (-snr_db / 20)).astype(np.float32)


def _without(clip: NDArray[np.float32], low_hz: float, high_hz: float) -> NDArray[np.float32]:
    hz = np.fft.rfftfreq(clip.size, 1 / RATE_HZ)
    return np.fft.irfft(np.fft.rfft(clip) * ((hz < low_hz) | (hz >= high_hz)), clip.size).astype(np.float32)


def _rounded(clip: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    step = 2 * np.abs(clip).max() / 2**bits
    return np.asarray(np.round(clip / step) * step, np.float32)


def _degraded(clip: NDArray[np.float32]) -> list[list[NDArray[np.float32]]]:
    """Families of degradations, each from bad to good."""
    return [
        [_noisy(clip, snr_db) for snr_db in (5, 10, 20, 30, 40)],
        [_without(clip, low_hz, 8_001) for low_hz in (1_000, 2_000, 4_000, 6_000)],
        [_without(clip, 1_000, high_hz) for high_hz in (2_500, 1_500, 1_200)],
        [_rounded(clip, bits) for bits in (4, 5, 6, 8)],
    ]


def _loss(loss: torch.nn.Module, made: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    return float(loss(torch.from_numpy(made)[None], torch.from_numpy(wanted)[None]))


@pytest.mark.parametrize("name", ["speech-russian-1.wav", "crow.flac"])
def test_disturbance_falls_with_the_degradation(name: str) -> None:
    for family in _degraded(_sound(name)):
        found = [_loss(LOSSES[0], made, _sound(name)) for made in family]
        assert found == sorted(found, reverse=True)
        assert 0 < found[-1] < found[0] < 6


def test_predicts_the_raw_score_of_pesq() -> None:
    pesq = pytest.importorskip("pesq").pesq
    pairs = []
    for name in ("speech-russian-1.wav", "speech-russian-2.wav"):
        clip = _sound(name)
        for made in (made for family in _degraded(clip) for made in family):
            raw = (3.8224 - math.log(4 / (pesq(RATE_HZ, clip, made, "wb") - 0.999) - 1)) / 1.3669
            pairs.append((raw, 4.5 - _loss(LOSSES[0], made, clip)))
    raw_scores, predicted = np.array(pairs).T
    assert np.corrcoef(raw_scores, predicted)[0, 1] > 0.995
    assert np.abs(raw_scores - predicted).max() < 0.1
    assert np.median(np.abs(raw_scores - predicted)) < 0.005


def test_predicts_stoi() -> None:
    stoi = pytest.importorskip("pystoi").stoi
    clip = _sound("speech-russian-1.wav")
    for snr_db in (-10, 0, 10, 20):
        made = _noisy(clip, snr_db)
        assert 1 - _loss(LOSSES[1], made, clip) == pytest.approx(stoi(clip, made, RATE_HZ), abs=0.005)


@pytest.mark.parametrize("loss", LOSSES)
def test_levels_do_not_count(loss: torch.nn.Module) -> None:
    clip = _sound("speech-russian-1.wav")
    made, found = _noisy(clip, 15), _loss(loss, _noisy(clip, 15), clip)
    assert _loss(loss, clip, clip) < 1e-3
    assert _loss(loss, clip / 8, clip) < 1e-3
    assert _loss(loss, made / 4, clip * 2) == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("loss", LOSSES)
def test_clips_of_a_batch_do_not_depend_on_each_other(loss: torch.nn.Module) -> None:
    clip = _sound("speech-russian-1.wav")
    others = np.stack([clip, np.roll(clip, 5_000), np.zeros_like(clip)])
    made = np.stack([_noisy(clip, 10), _noisy(clip, 20), np.zeros_like(clip)])
    alone = [_loss(loss, made[row], others[row]) for row in range(3)]
    together = float(loss(torch.from_numpy(made), torch.from_numpy(others)))
    assert together == pytest.approx(float(np.mean(alone)), rel=1e-4)


@pytest.mark.parametrize("kind", [PerceptualLoss, IntelligibilityLoss])
def test_other_rates(kind: type[PerceptualLoss] | type[IntelligibilityLoss]) -> None:
    # Nothing near 8 kHz, where resampling leaves out some.
    clip, made = (_without(each, 7_000, 8_001) for each in (_sound("crow.flac"), _noisy(_sound("crow.flac"), 15)))
    found = _loss(kind(RATE_HZ), made, clip)
    for rate_hz in (22_050, 24_000, 48_000):
        pair = [soxr.resample(each, RATE_HZ, rate_hz) for each in (made, clip)]
        assert _loss(kind(rate_hz), *pair) == pytest.approx(found, abs=0.02)
    with pytest.raises(SpecError, match="8000"):
        kind(8_000)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("made", ["zero", "equal", "tiny", "loud", "click", "noise"])
@pytest.mark.parametrize("wanted", ["zero", "tiny", "click", "noise", "half"])
def test_losses_and_gradients_are_finite(loss: torch.nn.Module, made: str, wanted: str) -> None:
    noise = 0.1 * torch.randn(2, 8_000, generator=torch.Generator().manual_seed(0))
    zero = torch.zeros_like(noise)
    half, click = noise.clone(), zero.clone()
    half[:, 4_000:], click[:, 4_000] = 0, 1
    clips = {"zero": zero, "tiny": 1e-20 * noise, "loud": 1e4 * noise.flip(0), "click": click, "half": half}
    clips["noise"] = noise
    clips["equal"] = clips[wanted]
    asked = clips[made].clone().requires_grad_()
    value = loss(asked, clips[wanted])
    value.backward()
    assert asked.grad is not None
    assert torch.isfinite(value)
    assert torch.isfinite(asked.grad).all()


@pytest.mark.parametrize(("loss", "shortest"), [(LOSSES[0], 512), (LOSSES[1], 6_349)])
def test_shortest_clips(loss: torch.nn.Module, shortest: int) -> None:
    clip = _sound("speech-russian-1.wav")[RATE_HZ:]
    for count in (shortest, shortest + 1, shortest + 255):
        assert math.isfinite(_loss(loss, _noisy(clip, 10)[:count], clip[:count]))
    with pytest.raises(ShapeError, match="at least"):
        _loss(loss, clip[: shortest - 1], clip[: shortest - 1])
    with pytest.raises(ShapeError, match="equal shapes"):
        _loss(loss, clip[:8_000], clip[:8_001])


@pytest.mark.parametrize("kind", [PerceptualLoss, IntelligibilityLoss])
def test_gradients_are_those_of_the_values(kind: type[PerceptualLoss] | type[IntelligibilityLoss]) -> None:
    clip = torch.from_numpy(_sound("speech-russian-1.wav")[RATE_HZ : RATE_HZ + 8_000]).double()[None]
    noise = torch.randn(2, 1, 8_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    made, loss = (clip + 0.01 * noise[0]).requires_grad_(), kind().double()
    (slope,) = torch.autograd.grad(loss(made, clip), made)
    # Along a random direction and along the gradient, by central differences.
    for direction in (noise[1] / noise[1].norm(), slope / slope.norm()):
        step = 1e-6 * direction
        with torch.no_grad():
            measured = float(loss(made + step, clip) - loss(made - step, clip)) / 2e-6
        assert measured == pytest.approx(float((slope * direction).sum()), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_descent_makes_sound_better(loss: torch.nn.Module) -> None:
    clip = torch.from_numpy(_sound("speech-russian-2.wav")[RATE_HZ // 2 : RATE_HZ])[None]
    made = (clip + 0.02 * torch.randn(clip.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
    optimizer = torch.optim.Adam([made], 1e-3)
    values = []
    for _ in range(8):
        optimizer.zero_grad()
        value = loss(made, clip)
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.9 * values[0]
