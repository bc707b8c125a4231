"""Known codecs for sound: Opus and MP3 by PyAV, codec2 by its own tools; and Griffin-Lim, which is no codec.

| name            | what it is                                                                                    |
|-----------------|-----------------------------------------------------------------------------------------------|
| Opus            | libopus, "audio" (better or equal to "voip" for speech too), variable rate, from 6 kbit/s on  |
| codec2          | c2enc and c2dec where they are on the PATH; speech at 8 kHz, 700 to 3,200 bit/s               |
| MP3             | LAME, constant rate, from 8 kbit/s on                                                         |
| mel Griffin-Lim | 80 mel bands at 80 Hz as they are, phases by 32 iterations: what vocoders stand beside        |

All get one channel at the tokenizer's rate, and give it back at that rate, their delay undone, as many samples as
they got. Packets count, without the container. Of each codec the largest file is taken that has no more bits than
the codes; what it sounds like is measured as for the tokenizer.
"""

from __future__ import annotations

import bisect
import io
import math
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import MediaError, MissingExtraError, SpecError
from multitok.frontend.griffin_lim import GriffinLim
from multitok.frontend.resample import to_mono
from multitok.frontend.spectrogram import MelSpectrogram
from multitok.metrics.audio_quality import MEL_HOP_S, NUM_MELS, USUAL_MEASURES, AudioQuality, Listener, measure_audio
from multitok.protocol import Json, Waveform

AUDIO_PEERS = ("Opus", "codec2", "MP3", "mel Griffin-Lim")
# What is run where nothing else is asked for.
USUAL_AUDIO_PEERS = ("Opus", "codec2")
GRIFFIN_LIM = "mel Griffin-Lim"
GRIFFIN_LIM_ITERATIONS = 32
_CODEC2_RATE_HZ = 8_000
_CODEC2_MODES = {700: "700C", 1200: "1200", 1300: "1300", 1400: "1400", 1600: "1600", 2400: "2400", 3200: "3200"}
_CODEC2_FRAME = 320


@dataclass(frozen=True, slots=True)
class _Form:
    """How PyAV is asked for a codec."""

    encoder: str
    container: str
    rates_hz: tuple[int, ...]
    settings: tuple[int, ...]
    options: Mapping[str, str]


_FORMS = {
    "Opus": _Form(
        encoder="libopus",
        container="ogg",
        rates_hz=(8_000, 12_000, 16_000, 24_000, 48_000),
        settings=(*range(6_000, 16_000, 500), *range(16_000, 32_000, 1_000), *range(32_000, 132_000, 4_000)),
        options={"application": "audio", "vbr": "on", "compression_level": "10", "frame_duration": "20"},
    ),
    "MP3": _Form(
        encoder="libmp3lame",
        container="mp3",
        rates_hz=(8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
        settings=(*range(8_000, 64_000, 8_000), 64_000, 80_000, 96_000, 112_000, 128_000),
        options={},
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class CodedSound:
    """What a codec made of a clip.

    Args:
        payload: A file that its decoder reads.
        num_bits: Those of the packets in it.
    """

    payload: bytes
    num_bits: int


class SoundCodec(ABC):
    """A codec as the search needs it."""

    @property
    @abstractmethod
    def settings(self) -> Sequence[int]:
        """Bits a second that can be asked for, rising."""

    @abstractmethod
    def encode(self, samples: NDArray[np.float32], sample_rate_hz: int, bitrate_bps: int) -> CodedSound:
        """The coded clip [N]."""

    @abstractmethod
    def decode(self, coded: CodedSound, num_samples: int, sample_rate_hz: int) -> NDArray[np.float32]:
        """[num_samples] at the rate, each at its place."""

    def round_trip(self, wave: Waveform, bitrate_bps: int) -> Waveform:
        """A sound there and back, as one channel at its own rate."""
        mono = to_mono(wave, wave.sample_rate_hz)
        coded = self.encode(mono, wave.sample_rate_hz, bitrate_bps)
        return Waveform(self.decode(coded, mono.size, wave.sample_rate_hz), wave.sample_rate_hz)


class AvCodec(SoundCodec):
    """Opus or MP3, in a container that says how many samples of delay there are.

    Args:
        name: "Opus" or "MP3".

    Raises:
        MissingExtraError: PyAV is not installed.
    """

    def __init__(self, name: str) -> None:
        self._form = _FORMS[name]
        _av()

    @property
    def settings(self) -> Sequence[int]:
        """Bits a second: of Opus 6,000 to 128,000, finer below."""
        return self._form.settings

    def encode(self, samples: NDArray[np.float32], sample_rate_hz: int, bitrate_bps: int) -> CodedSound:
        """A file in memory, and the bits of its packets."""
        av = _av()
        rates = self._form.rates_hz
        rate = next((known for known in rates if known >= sample_rate_hz), rates[-1])
        frame = av.AudioFrame.from_ndarray(_resample(samples, sample_rate_hz, rate)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        file, num_bits = io.BytesIO(), 0
        with av.open(file, "w", format=self._form.container) as container:
            stream = container.add_stream(self._form.encoder, rate=rate, layout="mono", options=self._form.options)
            stream.bit_rate = bitrate_bps
            for part in (frame, None):
                for packet in stream.encode(part):
                    num_bits += 8 * packet.size
                    container.mux(packet)
        return CodedSound(file.getvalue(), num_bits)

    def decode(self, coded: CodedSound, num_samples: int, sample_rate_hz: int) -> NDArray[np.float32]:
        """The container's samples, resampled."""
        av = _av()
        with av.open(io.BytesIO(coded.payload)) as container:
            resampler = av.AudioResampler(format="fltp", layout="mono")
            parts = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
            rate = int(container.streams.audio[0].rate)
        return _fitted(_resample(np.concatenate(parts), rate, sample_rate_hz), num_samples)


class Codec2(SoundCodec):
    """codec2's own tools, one process each way.

    Raises:
        MediaError: They are not on the PATH.
    """

    def __init__(self) -> None:
        if not (shutil.which("c2enc") and shutil.which("c2dec")):
            raise MediaError("c2enc and c2dec are not on the PATH: install codec2 (apt-get install codec2)")

    @property
    def settings(self) -> Sequence[int]:
        """Its modes."""
        return tuple(_CODEC2_MODES)

    def encode(self, samples: NDArray[np.float32], sample_rate_hz: int, bitrate_bps: int) -> CodedSound:
        """The frames that c2enc writes; counted at the mode's rate, without the bits that fill up bytes."""
        at_8_khz = _resample(samples, sample_rate_hz, _CODEC2_RATE_HZ)
        num_bits = math.ceil(samples.size / sample_rate_hz * bitrate_bps)
        # One more frame than there is sound, for it leaves out the last when it is not full, and is late.
        padded = np.pad(at_8_khz, (0, 2 * _CODEC2_FRAME + _codec2_delay(bitrate_bps)))
        raw = np.rint(np.clip(padded, -1, 1) * 32767).astype("<i2").tobytes()
        mode = _CODEC2_MODES[bitrate_bps]
        return CodedSound(mode.encode() + b" " + _run("c2enc", mode, raw), num_bits)

    def decode(self, coded: CodedSound, num_samples: int, sample_rate_hz: int) -> NDArray[np.float32]:
        """What c2dec makes of it, earlier by its delay."""
        mode, _, payload = coded.payload.partition(b" ")
        raw = np.frombuffer(_run("c2dec", mode.decode(), payload), "<i2").astype(np.float32) / np.float32(32768)
        delay = _codec2_delay(700 if mode == b"700C" else int(mode))
        return _fitted(_resample(raw[delay:], _CODEC2_RATE_HZ, sample_rate_hz), num_samples)


@dataclass(frozen=True, slots=True)
class AudioPeerResult:
    """The largest coded clip of one codec under a limit.

    Args:
        bitrate_bps: What was asked for; None where no clip is small enough, and for what has no rate.
        num_bits: What its packets take.
        quality: How near it is to the original.
        reason: Why there is none.
    """

    bitrate_bps: int | None = None
    num_bits: int | None = None
    quality: AudioQuality | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Json]:
        """The result as JSON values."""
        return {
            "bitrate_bps": self.bitrate_bps,
            "num_bits": self.num_bits,
            "quality": self.quality.to_json() if self.quality else None,
            "reason": self.reason,
        }


class AudioPeers:
    """The known codecs for one clip; remembers what it coded and measured, so that further limits cost little.

    Args:
        wave: The clip.
        sample_rate_hz: What the tokenizer works at; the codecs get the clip so.
        names: From `AUDIO_PEERS`; None takes `USUAL_AUDIO_PEERS`.
        measures: As for `measure_audio`.
        listener: As for `measure_audio`.

    Raises:
        SpecError: A codec is unknown.
        InputError: The clip has no samples, or some that are not finite.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(
        self,
        wave: Waveform,
        sample_rate_hz: int,
        names: Sequence[str] | None = None,
        *,
        measures: Sequence[str] = USUAL_MEASURES,
        listener: Listener | None = None,
    ) -> None:
        self._names = USUAL_AUDIO_PEERS if names is None else tuple(names)
        check_audio_peers(self._names)
        self._wave = Waveform(to_mono(wave, sample_rate_hz), sample_rate_hz)
        self._measures, self._listener = measures, listener
        self._coded: dict[tuple[str, int], CodedSound] = {}
        self._qualities: dict[tuple[str, int], AudioQuality] = {}

    def best(self, max_bits: float) -> dict[str, AudioPeerResult]:
        """The largest clip of each codec that takes no more than `max_bits`."""
        return {name: self._best(name, max_bits) for name in self._names}

    def decoded(self, name: str, bitrate_bps: int) -> NDArray[np.float32]:
        """What a codec gives back at a setting, [N]."""
        samples = self._wave.samples[0]
        if name == GRIFFIN_LIM:
            return mel_griffin_lim(samples, self._wave.sample_rate_hz)
        coded = self._at(name, bitrate_bps)
        return _codec(name).decode(coded, samples.size, self._wave.sample_rate_hz)

    def _best(self, name: str, max_bits: float) -> AudioPeerResult:
        if name == GRIFFIN_LIM:
            return AudioPeerResult(quality=self._quality(name, 0))
        try:
            settings = _codec(name).settings
        except MediaError as error:
            return AudioPeerResult(reason=str(error))
        # Rates rise with what is asked for, but for a few bytes: halving finds a setting that fits, and hardly ever
        # passes over a larger one that does.
        fitting = bisect.bisect_right(settings, max_bits, key=lambda rate: self._at(name, rate).num_bits)
        if not fitting:
            return AudioPeerResult(reason=f"its smallest file has {self._at(name, settings[0]).num_bits:,} bits")
        chosen = settings[fitting - 1]
        return AudioPeerResult(chosen, self._at(name, chosen).num_bits, self._quality(name, chosen))

    def _at(self, name: str, bitrate_bps: int) -> CodedSound:
        key = name, bitrate_bps
        if key not in self._coded:
            self._coded[key] = _codec(name).encode(self._wave.samples[0], self._wave.sample_rate_hz, bitrate_bps)
        return self._coded[key]

    def _quality(self, name: str, bitrate_bps: int) -> AudioQuality:
        key = name, bitrate_bps
        if key not in self._qualities:
            back = Waveform(self.decoded(name, bitrate_bps), self._wave.sample_rate_hz)
            self._qualities[key] = measure_audio(self._wave, back, measures=self._measures, listener=self._listener)
        return self._qualities[key]


def check_audio_peers(names: Sequence[str]) -> None:
    """Raise unless all `names` are known.

    Raises:
        SpecError: One is not.
    """
    for name in names:
        if name not in AUDIO_PEERS:
            raise SpecError(f"{name!r}: the codecs for audio are {', '.join(AUDIO_PEERS)}")


def mel_griffin_lim(samples: NDArray[np.float32], sample_rate_hz: int) -> NDArray[np.float32]:
    """Sound from its own mel energies, not quantised, by Griffin-Lim.

    Args:
        samples: [N].
        sample_rate_hz: Their rate.

    Returns:
        [N].
    """
    hop = 2 * round(sample_rate_hz * MEL_HOP_S / 2)
    mel = MelSpectrogram(sample_rate_hz, hop, 3 * hop, 1 << (4 * hop - 1).bit_length(), NUM_MELS)
    return GriffinLim(mel, GRIFFIN_LIM_ITERATIONS).run(mel.energies(samples))[: samples.size]


def _codec(name: str) -> SoundCodec:
    return Codec2() if name == "codec2" else AvCodec(name)


def _codec2_delay(bitrate_bps: int) -> int:
    # Samples at 8 kHz, measured: one frame of 20 ms, half a frame more in the mode of 40 ms frames.
    return 240 if bitrate_bps == 700 else 160


def _run(tool: str, mode: str, data: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given", Path(folder) / "made"
        given.write_bytes(data)
        done = subprocess.run([tool, mode, str(given), str(made)], capture_output=True, check=False)
        if done.returncode or not made.exists():
            raise MediaError(f"{tool} {mode}: {done.stderr.decode(errors='replace').strip() or 'it wrote nothing'}")
        return made.read_bytes()


def _fitted(samples: NDArray[np.float32], num_samples: int) -> NDArray[np.float32]:
    cut = samples[:num_samples]
    return np.pad(cut, (0, num_samples - cut.size))


def _resample(samples: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    return to_mono(Waveform(samples, from_hz), to_hz)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        reason = "Opus and MP3 need PyAV: pip install 'multitok[eval-audio]'"
        raise MissingExtraError(reason, name=error.name) from error
    return av
