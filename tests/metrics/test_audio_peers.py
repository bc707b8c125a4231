"""Known codecs for sound: never above the limit, in place, and the largest clip that fits."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.frontend import media
from multitok.frontend.resample import to_mono
from multitok.metrics.audio_peers import AUDIO_PEERS, AudioPeers, AvCodec, Codec2, mel_griffin_lim
from multitok.protocol import Waveform

DATA = Path(__file__).parent.parent.parent / "examples" / "data" / "sounds"
MEASURES = ("stoi", "mel_distance_db")


@cache
def speech() -> Waveform:
    wave: Waveform = media.read(DATA / "speech-russian-1.wav")
    return Waveform(to_mono(wave, 16_000)[16_000:48_000], 16_000)


def lag(left: NDArray[np.float32], right: NDArray[np.float32]) -> int:
    """By how many samples the second is late."""
    spectra = [np.fft.rfft(side, 2 * len(left)) for side in (left, right)]
    at = int(np.fft.irfft(np.conj(spectra[0]) * spectra[1]).argmax())
    return at if at < len(left) else at - 2 * len(left)


@pytest.mark.parametrize("name", ["Opus", "MP3"])
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_a_sound_comes_back_in_place(name: str, rate_hz: int) -> None:
    samples = to_mono(speech(), rate_hz)
    codec = AvCodec(name)
    coded = codec.encode(samples, rate_hz, 32_000)
    back = codec.decode(coded, samples.size, rate_hz)
    assert (back.shape, back.dtype) == (samples.shape, np.float32)
    assert abs(lag(samples, back)) <= 4
    assert 0.7 < coded.num_bits / speech().duration_s / 32_000 < 1.3
    wave = codec.round_trip(Waveform(np.stack([samples, samples]), rate_hz), 32_000)
    assert wave.samples.shape == (1, samples.size)


def test_the_largest_clip_that_fits_is_found() -> None:
    peers = AudioPeers(speech(), 16_000, ["Opus", "MP3"], measures=MEASURES)
    seconds = speech().duration_s
    sizes = {
        name: {one: AvCodec(name).encode(speech().samples[0], 16_000, one).num_bits for one in some}
        for name, some in (("Opus", (6_000, 7_500, 11_000, 22_000, 96_000)), ("MP3", (8_000, 16_000, 64_000)))
    }
    for rate in (5_000, 8_000, 12_000, 24_000, 1e9):
        for name, found in peers.best(rate * seconds).items():
            fitting = [one for one, bits in sizes[name].items() if bits <= rate * seconds]
            if found.quality is None:
                assert not fitting
                assert "smallest file has" in found.reason
            else:
                assert (found.num_bits or 0) <= rate * seconds
                assert (found.bitrate_bps or 0) >= max(fitting, default=0)
    few, many = (peers.best(rate * seconds)["Opus"].quality for rate in (8_000, 32_000))
    assert few is not None
    assert many is not None
    assert (few.stoi or 1) < (many.stoi or 0)
    assert peers.best(1e9)["Opus"].to_json()["bitrate_bps"] == 128_000


def test_a_mel_spectrogram_without_a_rate() -> None:
    peers = AudioPeers(speech(), 16_000, ["mel Griffin-Lim"], measures=MEASURES)
    found = peers.best(1)["mel Griffin-Lim"]
    assert (found.bitrate_bps, found.num_bits) == (None, None)
    assert found.quality is not None
    assert (found.quality.stoi or 0) > 0.9
    assert mel_griffin_lim(speech().samples[0][:1001], 16_000).shape == (1001,)


@pytest.mark.skipif(not shutil.which("c2enc"), reason="codec2 is not installed")
def test_codec2_comes_back_in_place() -> None:
    # The envelope: codec2 keeps no phases.
    envelope = np.convolve(np.abs(speech().samples[0]), np.hanning(401), "same")
    for rate in (1_200, 2_400, 3_200, 700):
        coded = Codec2().encode(speech().samples[0], 16_000, rate)
        back = Codec2().decode(coded, 32_000, 16_000)
        other = np.convolve(np.abs(back), np.hanning(401), "same")
        assert abs(lag(envelope - envelope.mean(), other - other.mean())) < 160
        assert coded.num_bits == rate * 2


def test_what_is_not_installed_or_unknown_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="'x264': the codecs for audio are Opus, codec2, MP3, mel Griffin-Lim"):
        AudioPeers(speech(), 16_000, ["x264"])
    monkeypatch.setenv("PATH", "")
    found = AudioPeers(speech(), 16_000, ["codec2"], measures=MEASURES).best(1e9)["codec2"]
    assert (found.quality, "apt-get install codec2" in found.reason) == (None, True)
    assert len(AUDIO_PEERS) == 4
