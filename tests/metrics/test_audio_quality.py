"""Measures of decoded sound: against slow references and the packages themselves, and what is refused."""

from __future__ import annotations

import json
import math
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pesq
import pystoi
import pytest

import multitok
from multitok.errors import InputError, MissingExtraError, ShapeError, SpecError
from multitok.frontend import media
from multitok.frontend.resample import to_mono
from multitok.metrics.audio_quality import (
    MEASURES,
    USUAL_MEASURES,
    AudioQuality,
    comparable,
    measure_audio,
    mel_distance_db,
    si_sdr_db,
    spectral_distance_db,
)
from multitok.metrics.audio_stability import CHANGES, equal_share, stability
from multitok.protocol import Codes, Waveform

DATA = Path(__file__).parent.parent.parent / "examples" / "data" / "sounds"
# DistillMOS needs a package of its own and takes seconds: a slow test has it.
QUICK = tuple(name for name in USUAL_MEASURES if name != "distillmos")


@cache
def speech() -> Waveform:
    wave: Waveform = media.read(DATA / "speech-russian-1.wav")
    return Waveform(to_mono(wave, 16_000)[16_000:48_000], 16_000)


def noisy(level: float) -> Waveform:
    noise = np.random.default_rng(0).standard_normal(speech().samples.shape).astype(np.float32)
    return Waveform(speech().samples + np.float32(level) * noise, 16_000)


def test_equal_sounds_are_as_good_as_can_be() -> None:
    found = measure_audio(speech(), speech(), measures=(*QUICK, "pesq_nb"))
    assert found.pesq_wb == pytest.approx(4.644, abs=1e-3)
    assert found.pesq_nb == pytest.approx(4.549, abs=1e-3)
    assert found.stoi == pytest.approx(1)
    assert found.estoi == pytest.approx(1)
    assert (found.mel_distance_db, found.spectral_distance_db, found.si_sdr_db) == (0, 0, math.inf)
    assert (found.distillmos, found.speaker_similarity) == (None, None)
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert set(data) == {*MEASURES, "wer", "cer"}
    assert data["si_sdr_db"] == "inf"


def test_measures_are_those_of_their_packages() -> None:
    left, right = speech().samples[0], noisy(0.01).samples[0]
    found = measure_audio(speech(), noisy(0.01), measures=QUICK)
    assert found.pesq_wb == pytest.approx(pesq.pesq(16_000, left, right, "wb"))
    assert found.stoi == pytest.approx(pystoi.stoi(left, right, 16_000))
    assert found.estoi == pytest.approx(pystoi.stoi(left, right, 16_000, extended=True))


def test_more_noise_is_worse_by_every_measure() -> None:
    better, worse = (measure_audio(speech(), noisy(level), measures=QUICK) for level in (0.003, 0.03))
    for name in ("pesq_wb", "stoi", "estoi", "si_sdr_db"):
        assert getattr(better, name) > getattr(worse, name)
    for name in ("mel_distance_db", "spectral_distance_db"):
        assert getattr(better, name) < getattr(worse, name)


def test_distances_of_spectra_know_a_gain() -> None:
    # Loud everywhere, so that no level lies below the floor: a gain of 6.02 dB is off by that in every place.
    noise = np.random.default_rng(0).standard_normal(8_000).astype(np.float32) * np.float32(0.1)
    for distance in (mel_distance_db, spectral_distance_db):
        assert distance(noise, 2 * noise, 16_000) == pytest.approx(20 * math.log10(2), rel=1e-3)
    # 100 dB down, only the floor is left of the decoded sound: no band is further off than from the top to the floor.
    assert mel_distance_db(noise, noise * np.float32(1e-5), 16_000) < 80


def test_spectral_distance_is_its_formula() -> None:
    left, right = speech().samples[0][:4000], noisy(0.01).samples[0][:4000]
    frames = []
    floor = None
    powers = []
    for side in (left, right):
        padded = np.concatenate([side.astype(float), np.zeros(512)])
        powers.append(
            [abs(np.fft.rfft(padded[at : at + 512] * np.hanning(512))) ** 2 for at in range(0, len(padded) - 511, 256)]
        )
    floor = np.max(powers[0]) * 1e-8
    for a, b in zip(*powers, strict=True):
        difference = [10 * math.log10(max(x, floor) / max(y, floor)) for x, y in zip(a, b, strict=True)]
        frames.append(math.sqrt(sum(d * d for d in difference) / len(difference)))
    assert spectral_distance_db(left, right, 16_000) == pytest.approx(sum(frames) / len(frames))


def test_si_sdr_is_its_formula() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.standard_normal((2, 50)).astype(np.float32)
    a, b = left.astype(float) - left.astype(float).mean(), right.astype(float) - right.astype(float).mean()
    target = (a @ b) / (a @ a) * a
    assert si_sdr_db(left, right) == pytest.approx(10 * math.log10((target @ target) / ((b - target) @ (b - target))))
    assert si_sdr_db(left, 3 * left) == math.inf
    assert si_sdr_db(left, np.zeros_like(left)) is None
    assert si_sdr_db(left, left + np.float32(0.1) * right) == pytest.approx(
        si_sdr_db(left, np.float32(7) * (left + np.float32(0.1) * right)), abs=1e-3
    )


def test_rates_and_channels_are_made_alike() -> None:
    stereo = Waveform(np.repeat(np.repeat(speech().samples, 2, axis=0), 1, axis=1), 16_000)
    left, right = comparable(stereo, speech())
    assert np.array_equal(left, right)
    left, right = comparable(Waveform(np.zeros((1, 44_101)) + 0.1, 44_100), Waveform(np.zeros((1, 16_000)), 16_000))
    assert left.size == right.size == 16_000
    with pytest.raises(ShapeError, match=r"32,000 samples of the original and 31,000 decoded at 16000 Hz"):
        comparable(speech(), Waveform(speech().samples[:, :31_000], 16_000))


def test_what_is_too_short_or_silent_has_no_measure() -> None:
    short = Waveform(speech().samples[:, :4_000], 16_000)
    found = measure_audio(short, short, measures=("pesq_wb", "stoi", "distillmos", "mel_distance_db"))
    assert (found.pesq_wb, found.stoi, found.distillmos, found.mel_distance_db) == (None, None, None, 0)
    silent = Waveform(np.zeros((1, 16_000), np.float32), 16_000)
    assert measure_audio(silent, silent, measures=("pesq_wb", "si_sdr_db")) == AudioQuality()
    with pytest.raises(InputError, match="the original is silent"):
        measure_audio(silent, silent, measures=("mel_distance_db",))


def test_what_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="measures pesq: known are pesq_wb"):
        measure_audio(speech(), speech(), measures=("pesq",))
    for package, measure in (("pesq", "pesq_wb"), ("pystoi", "stoi")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=r"multitok\[eval-audio\]"):
            measure_audio(speech(), speech(), measures=(measure,))


def test_a_mean_is_over_the_items_that_have_the_measure() -> None:
    mean = AudioQuality.mean([AudioQuality(pesq_wb=2, stoi=0.5), AudioQuality(pesq_wb=3), AudioQuality(pesq_wb=1)])
    assert (mean.pesq_wb, mean.stoi, mean.estoi) == (2, 0.5, None)


@pytest.mark.slow
def test_opinion_scores_fall_with_noise() -> None:
    pytest.importorskip("distillmos")
    better, worse = (measure_audio(speech(), noisy(level), measures=("distillmos",)) for level in (0, 0.05))
    assert 1 <= (worse.distillmos or 0) < (better.distillmos or 0) <= 5.5


def test_codes_stay_equal_under_what_nobody_hears() -> None:
    tokenizer = multitok.load("dmel-80hz")
    found = stability(tokenizer, speech())
    assert list(found) == list(CHANGES)
    assert all(len(shares) == tokenizer.spec.num_codebooks for shares in found.values())
    mean = {name: float(np.mean(shares)) for name, shares in found.items()}
    assert mean["shift by 1"] > 0.97
    assert mean["resampled"] > 0.97
    assert mean["noise 40 dB"] > mean["noise 20 dB"]
    assert mean["gain +6 dB"] < 0.5  # dMel's codes are levels: a gain moves them all
    assert stability(tokenizer, speech(), changes=()) == {}
    with pytest.raises(SpecError, match="changes louder: known are gain"):
        stability(tokenizer, speech(), changes=["louder"])


def test_equal_shares_are_counted_where_both_have_frames() -> None:
    before = Codes(np.array([[1, 2, 3], [4, 5, 6]]), (3,))
    after = Codes(np.array([[1, 2, 9, 9], [0, 5, 6, 9]]), (4,))
    assert equal_share(before, after) == [2 / 3, 2 / 3]
    assert equal_share(before, before) == [1, 1]
