"""How near decoded sound is to its original: PESQ, STOI, DistillMOS, spectra, the waveform itself.

| measure              | at          | what it is                                                                    |
|----------------------|-------------|-------------------------------------------------------------------------------|
| pesq_wb, pesq_nb     | 16, 8 kHz   | ITU-T P.862.2 and P.862 by the package pesq, up to 4.64 and 4.55; speech       |
| stoi, estoi          | 10 kHz      | intelligibility by pystoi, up to 1; speech                                     |
| distillmos           | 16 kHz      | opinion score 1 to 5 that a net predicts from the decoded sound alone; speech  |
| speaker_similarity   | 16 kHz      | cosine of resemblyzer's embeddings of both, up to 1; speech                    |
| mel_distance_db      | the decoded | mean absolute difference of log mel energies; 80 bands, hops of 12.5 ms        |
| spectral_distance_db | the decoded | log-spectral distance: rms over frequencies, mean over frames of 32 ms         |
| si_sdr_db            | the decoded | scale-invariant signal to distortion: sense only where phases are kept         |

Both sides are mixed to one channel. The original is resampled to the decoded sound's rate first, for that is what the
tokenizer was given; the measures for speech then resample both to the rate they are defined at. Nothing is shifted,
scaled or trimmed: a tokenizer is to give back as many samples as it took, each at its place. (PESQ aligns and levels
by itself, as its standard says.) Levels of spectra stop 80 dB below the original's loudest, so that the difference
between silence and near silence does not count.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MissingExtraError, ShapeError, SpecError
from multitok.frontend.resample import to_mono
from multitok.frontend.spectrogram import MelSpectrogram
from multitok.metrics.audio_words import RATE_HZ, WordErrors
from multitok.protocol import Json, Waveform

# Mono samples at 16 kHz -> error rates of what is heard in them.
Listener = Callable[[NDArray[np.float32]], WordErrors]
SPEECH_RATE_HZ = 16_000
FLOOR_DB = 80.0
NUM_MELS = 80
MEL_HOP_S = 0.0125
SPECTRUM_WINDOW_S = 0.032
# DistillMOS was made for clips of some seconds; longer ones are judged in pieces of this length, and averaged.
MOS_PIECE_S = 8.0
# Below this length the net of DistillMOS, and PESQ, have nothing to go by.
SHORTEST_S = 0.5


@dataclass(frozen=True, slots=True)
class AudioQuality:
    """Measures of one decoded item; None where one is not defined or was not asked for.

    Args:
        pesq_wb: Wideband PESQ.
        pesq_nb: Narrowband PESQ.
        stoi: Short-time objective intelligibility.
        estoi: The same, extended.
        distillmos: Predicted mean opinion score.
        speaker_similarity: Cosine of speaker embeddings.
        mel_distance_db: Mean absolute difference of log mel energies.
        spectral_distance_db: Log-spectral distance.
        si_sdr_db: Scale-invariant signal-to-distortion ratio; infinite where nothing differs.
        wer: Word error rate of a recogniser (`multitok.metrics.audio_words`).
        cer: Its character error rate.
    """

    pesq_wb: float | None = None
    pesq_nb: float | None = None
    stoi: float | None = None
    estoi: float | None = None
    distillmos: float | None = None
    speaker_similarity: float | None = None
    mel_distance_db: float | None = None
    spectral_distance_db: float | None = None
    si_sdr_db: float | None = None
    wer: float | None = None
    cer: float | None = None

    def to_json(self) -> dict[str, Json]:
        """The measures as JSON values; infinity is the word "inf"."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: ("inf" if value > 0 else "-inf") if value is not None and math.isinf(value) else value
            for name, value in values.items()
        }

    @classmethod
    def mean(cls, qualities: Iterable[AudioQuality]) -> AudioQuality:
        """The mean of each measure over the items that have it; None where none has."""
        found = list(qualities)
        means: dict[str, float | None] = {}
        for field in fields(cls):
            values = [value for one in found if (value := getattr(one, field.name)) is not None]
            means[field.name] = math.fsum(values) / len(values) if values else None
        return cls(**means)


MEASURES = tuple(field.name for field in fields(AudioQuality) if field.name not in ("wer", "cer"))
# All but the narrow band, and but the one that needs a package of its own.
USUAL_MEASURES = tuple(name for name in MEASURES if name not in ("pesq_nb", "speaker_similarity"))


def measure_audio(
    original: Waveform,
    decoded: Waveform,
    *,
    measures: Sequence[str] = USUAL_MEASURES,
    listener: Listener | None = None,
) -> AudioQuality:
    """The measures asked for.

    Args:
        original: What was encoded.
        decoded: What came back; at most one sample at its rate longer or shorter than the original.
        measures: From `MEASURES`.
        listener: What counts the wrong words in the decoded sound.

    Returns:
        Those that are defined for this item: PESQ and DistillMOS need half a second and some sound in the original.

    Raises:
        SpecError: A measure is unknown.
        ShapeError: The lengths differ.
        InputError: One of the two cannot be compared: no samples, or some that are not finite.
        MissingExtraError: A measure's package is not installed.
    """
    unknown = [name for name in measures if name not in MEASURES]
    if unknown:
        raise SpecError(f"measures {', '.join(unknown)}: known are {', '.join(MEASURES)}")
    reference, degraded = comparable(original, decoded)
    values = {name: _FUNCTIONS[name](reference, degraded, decoded.sample_rate_hz) for name in measures}
    errors = WordErrors(None, None) if listener is None else listener(_at(degraded, decoded.sample_rate_hz, RATE_HZ))
    return AudioQuality(**values, wer=errors.wer, cer=errors.cer)


def comparable(original: Waveform, decoded: Waveform) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both as one channel at the decoded sound's rate, cut to the shorter.

    Args:
        original: Any rate and channel count.
        decoded: At most one sample longer or shorter.

    Returns:
        Original and decoded, [N] each.

    Raises:
        ShapeError: The lengths differ by more.
        InputError: No samples, or some that are not finite.
    """
    reference = to_mono(original, decoded.sample_rate_hz)
    degraded = to_mono(decoded, decoded.sample_rate_hz)
    if abs(reference.size - degraded.size) > 1:
        raise ShapeError(
            f"{reference.size:,} samples of the original and {degraded.size:,} decoded at {decoded.sample_rate_hz} Hz: "
            "give sounds of one length; cut what a codec adds at the ends, and undo its delay"
        )
    count = min(reference.size, degraded.size)
    return reference[:count], degraded[:count]


def mel_distance_db(original: NDArray[np.float32], decoded: NDArray[np.float32], sample_rate_hz: int) -> float:
    """Mean absolute difference of mel energies in dB, over frames and bands.

    Args:
        original: [N].
        decoded: [N].
        sample_rate_hz: Of both.

    Returns:
        0 where nothing differs.
    """
    hop = max(2, round(sample_rate_hz * MEL_HOP_S))
    fft_length = 1 << (4 * hop - 1).bit_length()
    mel = MelSpectrogram(sample_rate_hz, hop, 3 * hop, fft_length, NUM_MELS)
    return float(np.abs(_difference_db(mel.energies(original), mel.energies(decoded))).mean())


def spectral_distance_db(original: NDArray[np.float32], decoded: NDArray[np.float32], sample_rate_hz: int) -> float:
    """Log-spectral distance: root mean square over frequencies of the difference in dB, mean over frames.

    Args:
        original: [N].
        decoded: [N].
        sample_rate_hz: Of both.

    Returns:
        0 where nothing differs.

    Source:
        Gray, Markel 1976, "Distance measures for speech processing".
    """
    window_length = 2 * round(sample_rate_hz * SPECTRUM_WINDOW_S / 2)
    difference = _difference_db(_powers(original, window_length), _powers(decoded, window_length))
    return float(np.sqrt((difference**2).mean(axis=1)).mean())


def si_sdr_db(original: NDArray[np.float32], decoded: NDArray[np.float32], sample_rate_hz: int = 0) -> float | None:
    """Scale-invariant signal-to-distortion ratio.

    Args:
        original: [N].
        decoded: [N].
        sample_rate_hz: Of both; looked at by nobody.

    Returns:
        Infinite where the two differ by a factor only; None where one of them is silent.

    Source:
        Le Roux et al. 2019, "SDR - half-baked or well done?".
    """
    left, right = (side.astype(np.float64) - side.mean(dtype=np.float64) for side in (original, decoded))
    energy, shared = float(left @ left), float(left @ right)
    if energy == 0 or not right.any():
        return None
    target = shared / energy * left
    wanted, rest = float(target @ target), float(((right - target) ** 2).sum())
    # What float32 samples leave of an exact copy is no distortion.
    if rest <= 1e-14 * wanted:
        return math.inf
    return -math.inf if wanted == 0 else 10 * math.log10(wanted / rest)


def _pesq(mode: str, rate_hz: int) -> _Measure:
    def measure(original: NDArray[np.float32], decoded: NDArray[np.float32], sample_rate_hz: int) -> float | None:
        try:
            import pesq
        except ImportError as error:
            raise _missing("PESQ", "pesq", error) from error
        left, right = (_at(side, sample_rate_hz, rate_hz) for side in (original, decoded))
        if left.size < SHORTEST_S * rate_hz or not left.any() or not right.any():
            return None
        try:
            return float(pesq.pesq(rate_hz, left, right, mode))
        except pesq.NoUtterancesError:  # nothing in it that the standard takes for speech
            return None

    return measure


def _stoi(extended: bool) -> _Measure:
    def measure(original: NDArray[np.float32], decoded: NDArray[np.float32], sample_rate_hz: int) -> float | None:
        try:
            import pystoi
        except ImportError as error:
            raise _missing("STOI", "pystoi", error) from error
        import warnings

        with warnings.catch_warnings():
            # pystoi warns, and returns 1e-5, where fewer than 30 frames are left after silence is taken out.
            warnings.simplefilter("error", RuntimeWarning)
            try:
                return float(pystoi.stoi(original, decoded, sample_rate_hz, extended=extended))
            except RuntimeWarning:
                return None

    return measure


def _distillmos(original: NDArray[np.float32], decoded: NDArray[np.float32], sample_rate_hz: int) -> float | None:
    samples = _at(decoded, sample_rate_hz, SPEECH_RATE_HZ)
    if samples.size < SHORTEST_S * SPEECH_RATE_HZ:
        return None
    import torch

    pieces = np.array_split(samples, max(1, round(samples.size / (MOS_PIECE_S * SPEECH_RATE_HZ))))
    with torch.inference_mode():
        scores = [float(_mos_net()(torch.from_numpy(np.ascontiguousarray(piece))[None])) for piece in pieces]
    return math.fsum(scores) / len(scores)


@cache
def _mos_net() -> Any:
    try:
        import distillmos
    except ImportError as error:
        raise _missing("DistillMOS", "distillmos", error) from error
    with redirect_stdout(io.StringIO()):  # it tells where its weights lie
        return distillmos.ConvTransformerSQAModel().eval()


def _speaker_similarity(
    original: NDArray[np.float32], decoded: NDArray[np.float32], sample_rate_hz: int
) -> float | None:
    left, right = (_at(side, sample_rate_hz, SPEECH_RATE_HZ) for side in (original, decoded))
    if left.size < SHORTEST_S * SPEECH_RATE_HZ or not left.any() or not right.any():
        return None
    net = _speaker_net()
    # Loudness apart, the embedding of the same sound is the same: resemblyzer's own preprocessing evens it out too.
    embeddings = [net.embed_utterance(side * np.float32(0.03 / np.sqrt(np.mean(side**2)))) for side in (left, right)]
    return float(embeddings[0] @ embeddings[1])


@cache
def _speaker_net() -> Any:
    try:
        import resemblyzer
    except ImportError as error:
        reason = f"speaker similarity: {error}; pip install resemblyzer 'setuptools<81'"
        raise MissingExtraError(reason, name=error.name) from error
    return resemblyzer.VoiceEncoder("cpu", verbose=False)


def _at(samples: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    return to_mono(Waveform(samples, from_hz), to_hz)


def _powers(samples: NDArray[np.float32], window_length: int) -> NDArray[np.float64]:
    padded = np.pad(samples.astype(np.float64), (0, window_length))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window_length)[:: window_length // 2]
    spectrum = np.fft.rfft(frames * np.hanning(window_length))
    return np.asarray(spectrum.real**2 + spectrum.imag**2)


def _difference_db(original: NDArray[np.float64], decoded: NDArray[np.float64]) -> NDArray[np.float64]:
    """Difference of two sets of energies in dB, both raised to the floor below the original's highest."""
    highest = float(original.max())
    if highest == 0:
        raise InputError(
            "the original is silent: its spectrum has no level that the decoded one could be compared with"
        )
    floor = highest * 10 ** (-FLOOR_DB / 10)
    left, right = (10 * np.log10(np.maximum(side, floor)) for side in (original, decoded))
    return np.asarray(left - right)


def _missing(what: str, package: str, error: ImportError) -> MissingExtraError:
    return MissingExtraError(f"{what} needs {package}: pip install 'multitok[eval-audio]'", name=error.name)


_Measure = Callable[[NDArray[np.float32], NDArray[np.float32], int], "float | None"]
_FUNCTIONS: dict[str, _Measure] = {
    "pesq_wb": _pesq("wb", SPEECH_RATE_HZ),
    "pesq_nb": _pesq("nb", SPEECH_RATE_HZ // 2),
    "stoi": _stoi(extended=False),
    "estoi": _stoi(extended=True),
    "distillmos": _distillmos,
    "speaker_similarity": _speaker_similarity,
    "mel_distance_db": mel_distance_db,
    "spectral_distance_db": spectral_distance_db,
    "si_sdr_db": si_sdr_db,
}
