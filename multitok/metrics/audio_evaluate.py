"""Sound through a tokenizer and back, and everything measured on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.checkpoint import fingerprint
from multitok.codebook import native
from multitok.errors import SpecError
from multitok.frontend.resample import to_mono
from multitok.frontend.spectrogram import MelSpectrogram
from multitok.metrics.audio_evaluation import AudioEvaluation, AudioItem, AudioLevel, AudioSpeed
from multitok.metrics.audio_labels import Phone
from multitok.metrics.audio_peers import AudioPeerResult, AudioPeers, check_audio_peers
from multitok.metrics.audio_quality import MEASURES, USUAL_MEASURES, AudioQuality, Listener, measure_audio
from multitok.metrics.audio_stability import CHANGES, stability
from multitok.metrics.audio_unit_score import MFCC_FRAME_RATE_HZ, MFCC_UNITS, mfcc_features, mfcc_units, score_units
from multitok.metrics.audio_words import RATE_HZ, Recogniser, word_errors
from multitok.metrics.item_evaluator import (
    ItemEvaluator,
    MeasuredItem,
    RoundTrip,
    Watcher,
    limited_threads,
    versions,
)
from multitok.metrics.levels import Decoder
from multitok.metrics.rates import CodeCounts
from multitok.protocol import Modality, Tokenizer, TokenizerSpec, Waveform

# Where there are more codebooks than this, not every number of first ones is decoded, but 1, 2, 4, 8 ... and all.
MOST_LEVELS = 4
PICTURE_MELS, PICTURE_RANGE_DB = 80, 80.0


def evaluate_audio(
    tokenizer: Tokenizer[Waveform],
    items: Mapping[str, Waveform] | Iterable[tuple[str, Waveform]],
    **options: Any,
) -> AudioEvaluation:
    """Measure a tokenizer of sound on clips; one that it refuses is listed, and the others go on.

    Args:
        tokenizer: Of sound.
        items: Name -> clip, or pairs of them, taken one by one.
        options: Of `AudioEvaluator`.

    Returns:
        Levels, means, use of the codebooks, stability, speed, and with labels the score of the units.

    Raises:
        SpecError: The tokenizer is of another modality, or an option names what there is not.
        MissingExtraError: A package of the extra `eval-audio` is not installed.
    """
    evaluator = AudioEvaluator(tokenizer, **options)
    for key, wave in items.items() if isinstance(items, Mapping) else items:
        evaluator.add(key, wave)
    return evaluator.result()


class AudioEvaluator(ItemEvaluator[Waveform, AudioPeers, "_Measured"]):
    """The same clip by clip.

    Args:
        tokenizer: Of sound.
        name: What to call it; None takes its name inside a vocabulary.
        measures: From `MEASURES`.
        levels: Numbers of first codebooks to decode with; None takes all up to four, else 1, 2, 4, 8 ... and all.
        peers: Known codecs, from `AUDIO_PEERS`; None runs the usual ones, () none.
        changes: Changes to judge stability by, from `CHANGES`; None takes all, () none.
        runs: Timed runs of each encode and decode; 0 times nothing.
        threads: Threads for the tokenizer; None leaves them as they are.
        labels: Clip, without folder and suffix, -> its phones; clips without any are not scored as units, nor are
            tokenizers whose codes have no fixed rate.
        recognise: Counts word errors by this recogniser; None leaves them out.
        transcripts: Clip -> what is said in it; the recogniser's words of the original where there is none.
        watch: Called with every clip's spectrogram, as a volume of one slice, and those of what came back of it.

    Raises:
        SpecError: The tokenizer is of another modality, or a name or number is none that there is.
    """

    def __init__(
        self,
        tokenizer: Tokenizer[Waveform],
        *,
        name: str | None = None,
        measures: Sequence[str] = USUAL_MEASURES,
        levels: Sequence[int] | None = None,
        peers: Sequence[str] | None = None,
        changes: Sequence[str] | None = None,
        runs: int = 3,
        threads: int | None = None,
        labels: Mapping[str, Sequence[Phone]] | None = None,
        recognise: Recogniser | None = None,
        transcripts: Mapping[str, str] | None = None,
        watch: Watcher | None = None,
    ) -> None:
        spec = tokenizer.spec
        if spec.modality is not Modality.AUDIO:
            raise SpecError(f"{spec.kind!r} is for {spec.modality}: give a tokenizer for audio")
        check_audio_peers(peers or ())
        for what, names, known in (("measures", measures, MEASURES), ("changes", changes or (), tuple(CHANGES))):
            if unknown := [one for one in names if one not in known]:
                raise SpecError(f"{what} {', '.join(unknown)}: known are {', '.join(known)}")
        super().__init__(tokenizer, name, runs, threads)
        self._decoders = _chosen_levels(self._decoders, spec, levels)
        self._measures, self._peer_names = tuple(measures), peers
        self._changes = tuple(CHANGES) if changes is None else tuple(changes)
        self._labels, self._recognise = labels or {}, recognise
        self._transcripts, self._watch = transcripts or {}, watch
        self._units: dict[str, NDArray[np.int32]] = {}
        self._mfcc: dict[str, NDArray[np.float32]] = {}

    @property
    def rate_hz(self) -> int:
        """What the tokenizer works at, and the known codecs beside it."""
        rate = self._tokenizer.spec.sample_rate_hz
        assert rate is not None  # every tokenizer of sound has one
        return rate

    def peers(self, name: str, wave: Waveform) -> AudioPeers:
        """The known codecs for a clip, to be shared by evaluations at the same rate."""
        listener = self._listener(name, wave)
        return AudioPeers(wave, self.rate_hz, self._peer_names, measures=self._measures, listener=listener)

    def result(self) -> AudioEvaluation:
        """What was found so far."""
        spec = self._tokenizer.spec
        tables = self._tables()
        units, mfcc = None, None
        if self._units:
            rate_hz = self.rate_hz / spec.stride[0]
            units = score_units(self._units, self._labels, codebook_size=spec.codebook_sizes[0], frame_rate_hz=rate_hz)
            mfcc = score_units(
                mfcc_units(self._mfcc), self._labels, codebook_size=MFCC_UNITS, frame_rate_hz=MFCC_FRAME_RATE_HZ
            )
        return AudioEvaluation(
            tokenizer=self._name,
            kind=spec.kind,
            fingerprint=fingerprint(self._tokenizer),
            sample_rate_hz=self.rate_hz,
            versions=versions(),
            items=tuple(one.result(tables) for one in self._measured),
            failures=tuple(self._failures),
            codebooks=self._codebook_use(tables),
            speed=self._speed(),
            units=units,
            mfcc=mfcc,
        )

    def _measure(self, name: str, raw: Waveform, peers: AudioPeers | None) -> _Measured:
        trip = self._round_trip(raw)
        with limited_threads(self._threads):
            kept = stability(self._tokenizer, raw, codes=trip.codes, changes=self._changes)
        known = self.peers(name, raw) if peers is None else peers
        listener = self._listener(name, raw)
        item = _Measured(name, trip, raw.duration_s, kept)
        for k, back in trip.decoded.items():
            quality = measure_audio(raw, back, measures=self._measures, listener=listener)
            item.levels[k] = quality, known.best(trip.nominal_bits[k])
        if self._watch is not None:
            original = Waveform(to_mono(raw, self.rate_hz), self.rate_hz)
            pictures = {k: _picture(back, original) for k, back in trip.decoded.items()}
            self._watch(name, _picture(original, original), pictures, (-PICTURE_RANGE_DB, PICTURE_RANGE_DB))
        clip = Path(name).stem
        if clip in self._labels and self._tokenizer.spec.stride[0]:  # runs of units have no time of their own
            self._units[clip], self._mfcc[clip] = trip.codes.values[0].copy(), mfcc_features(raw)
        return item

    def _listener(self, name: str, wave: Waveform) -> Listener | None:
        recognise = self._recognise
        if recognise is None:
            return None
        clip = Path(name).stem
        wanted = self._transcripts[clip] if clip in self._transcripts else recognise(to_mono(wave, RATE_HZ))
        return lambda samples: word_errors(wanted, recognise(samples))

    def _speed(self) -> AudioSpeed | None:
        if not self._runs or not self._measured:
            return None
        seconds = sum(one.duration_s for one in self._measured)
        encode_s, decode_s = self._total_times()
        return AudioSpeed(
            encode_rtf=encode_s / seconds,
            decode_rtf=decode_s / seconds,
            runs=self._runs,
            threads=native.thread_count(self._threads),
        )


class _Measured(MeasuredItem):
    def __init__(self, name: str, trip: RoundTrip, duration_s: float, kept: Mapping[str, Sequence[float]]) -> None:
        super().__init__(name, trip)
        self.duration_s, self._kept = duration_s, kept
        self.levels: dict[int, tuple[AudioQuality, Mapping[str, AudioPeerResult]]] = {}

    def result(self, tables: Sequence[CodeCounts]) -> AudioItem:
        """The clip's row."""
        entropy = self.entropy_bits(tables) / self.duration_s
        return AudioItem(
            name=self.name,
            duration_s=self.duration_s,
            encode_s=self.encode_s,
            decode_s=self.decode_s,
            levels=tuple(
                AudioLevel(k, self.nominal_bits[k] / self.duration_s, float(entropy[k - 1]), quality, peers)
                for k, (quality, peers) in self.levels.items()
            ),
            stability={change: tuple(shares) for change, shares in self._kept.items()},
        )


def _chosen_levels(
    decoders: Mapping[int, Decoder], spec: TokenizerSpec, levels: Sequence[int] | None
) -> dict[int, Decoder]:
    total = spec.num_codebooks
    if levels is None:
        levels = [k for k in decoders if total <= MOST_LEVELS or k & (k - 1) == 0 or k == total]
    if unknown := [k for k in levels if k not in decoders]:
        allowed = ", ".join(map(str, decoders))
        raise SpecError(f"levels {', '.join(map(str, unknown))}: {spec.kind!r} decodes {allowed}")
    return {k: decoders[k] for k in sorted(levels)}


def _picture(wave: Waveform, original: Waveform) -> NDArray[np.float32]:
    """A spectrogram [1, 2 * bands, F] in dB below the original's loudest, low bands at the bottom."""
    rate = original.sample_rate_hz
    hop = 2 * round(rate / 160)
    mel = MelSpectrogram(rate, hop, 3 * hop, 1 << (4 * hop - 1).bit_length(), PICTURE_MELS)
    highest = max(float(mel.energies(original.samples[0]).max()), 1e-12)
    levels = 10 * np.log10(np.maximum(mel.energies(to_mono(wave, rate)) / highest, 10 ** (-PICTURE_RANGE_DB / 10)))
    return np.repeat(levels.T[::-1], 2, axis=0)[None].astype(np.float32)
