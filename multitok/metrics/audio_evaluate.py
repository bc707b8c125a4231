"""Sound through a tokenizer and back, and everything measured on the way."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.checkpoint import fingerprint
from multitok.codebook import native
from multitok.errors import CodeRangeError, InputError, ShapeError, SpecError
from multitok.frontend.resample import to_mono
from multitok.frontend.spectrogram import MelSpectrogram
from multitok.metrics.audio_evaluation import AudioEvaluation, AudioItem, AudioLevel, AudioSpeed
from multitok.metrics.audio_labels import Phone
from multitok.metrics.audio_peers import AudioPeerResult, AudioPeers, check_audio_peers
from multitok.metrics.audio_quality import MEASURES, USUAL_MEASURES, AudioQuality, Listener, measure_audio
from multitok.metrics.audio_stability import CHANGES, stability
from multitok.metrics.audio_unit_score import MFCC_FRAME_RATE_HZ, MFCC_UNITS, mfcc_features, mfcc_units, score_units
from multitok.metrics.audio_words import RATE_HZ, Recogniser, word_errors
from multitok.metrics.evaluate import Watcher, limited_threads, versions
from multitok.metrics.evaluation import CodebookUse, Failure
from multitok.metrics.levels import level_decoders
from multitok.metrics.rates import CodeCounts
from multitok.protocol import Codes, Modality, Tokenizer, Waveform

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


class AudioEvaluator:
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
        if runs < 0 or (threads is not None and threads < 1):
            raise SpecError(f"runs={runs}, threads={threads}: give at least 0 runs and at least 1 thread")
        self._tokenizer, self._name = tokenizer, spec.name if name is None else name
        self._decoders = _chosen_levels(tokenizer, levels)
        self._measures, self._peer_names = tuple(measures), peers
        self._changes = tuple(CHANGES) if changes is None else tuple(changes)
        self._runs, self._threads = runs, threads
        self._labels, self._recognise = labels or {}, recognise
        self._transcripts, self._watch = transcripts or {}, watch
        self._items: list[_Item] = []
        self._failures: list[Failure] = []
        self._units: dict[str, NDArray[np.int32]] = {}
        self._mfcc: dict[str, NDArray[np.float32]] = {}

    @property
    def rate_hz(self) -> int:
        """What the tokenizer works at, and the known codecs beside it."""
        rate = self._tokenizer.spec.sample_rate_hz
        assert rate is not None  # every tokenizer of sound has one
        return rate

    def add(self, name: str, wave: Waveform, *, peers: AudioPeers | None = None) -> Failure | None:
        """Measure one clip.

        Args:
            name: What to call it.
            wave: The clip.
            peers: The known codecs for it, where another evaluation at the same rate has them already.

        Returns:
            None, or why it could not be measured; then it is among the failures of the result too.

        Raises:
            MissingExtraError: A package of the extra `eval-audio` is not installed.
        """
        try:
            self._items.append(self._measure(name, wave, peers))
        except (InputError, ShapeError, CodeRangeError) as error:
            return self.fail(name, str(error))
        return None

    def fail(self, name: str, reason: str) -> Failure:
        """List a clip as one that could not be measured."""
        failure = Failure(name, reason)
        self._failures.append(failure)
        return failure

    def peers(self, name: str, wave: Waveform) -> AudioPeers:
        """The known codecs for a clip, to be shared by evaluations at the same rate."""
        listener = self._listener(name, wave)
        return AudioPeers(wave, self.rate_hz, self._peer_names, measures=self._measures, listener=listener)

    def result(self) -> AudioEvaluation:
        """What was found so far."""
        spec = self._tokenizer.spec
        tables = [CodeCounts.joined(list(parts)) for parts in zip(*(one.counts for one in self._items), strict=True)]
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
            items=tuple(one.result(tables) for one in self._items),
            failures=tuple(self._failures),
            codebooks=tuple(
                CodebookUse(size, int(table.counts.sum()), table.usage(size), table.perplexity, table.entropy_bits)
                for table, size in zip(tables, spec.codebook_sizes, strict=bool(tables))
            ),
            speed=self._speed(),
            units=units,
            mfcc=mfcc,
        )

    def _measure(self, name: str, wave: Waveform, peers: AudioPeers | None) -> _Item:
        with limited_threads(self._threads):
            codes, encode_s = self._timed(self._tokenizer.encode, wave)
            whole, decode_s = self._timed(self._tokenizer.decode, codes)
            last = self._tokenizer.spec.num_codebooks
            decoded = {k: whole if k == last else decode(codes) for k, decode in self._decoders.items()}
            kept = stability(self._tokenizer, wave, codes=codes, changes=self._changes)
        known = self.peers(name, wave) if peers is None else peers
        listener = self._listener(name, wave)
        item = _Item(name, codes, wave.duration_s, encode_s, decode_s, kept)
        log_sizes = np.log2(self._tokenizer.spec.codebook_sizes)
        for k, back in decoded.items():
            bits = float(log_sizes[:k].sum()) * codes.values.shape[-1]
            quality = measure_audio(wave, back, measures=self._measures, listener=listener)
            item.levels[k] = bits, quality, known.best(bits)
        if self._watch is not None:
            original = Waveform(to_mono(wave, self.rate_hz), self.rate_hz)
            pictures = {k: _picture(back, original) for k, back in decoded.items()}
            self._watch(name, _picture(original, original), pictures, (-PICTURE_RANGE_DB, PICTURE_RANGE_DB))
        clip = Path(name).stem
        if clip in self._labels and self._tokenizer.spec.stride[0]:  # runs of units have no time of their own
            self._units[clip], self._mfcc[clip] = codes.values[0].copy(), mfcc_features(wave)
        return item

    def _listener(self, name: str, wave: Waveform) -> Listener | None:
        recognise = self._recognise
        if recognise is None:
            return None
        clip = Path(name).stem
        wanted = self._transcripts[clip] if clip in self._transcripts else recognise(to_mono(wave, RATE_HZ))
        return lambda samples: word_errors(wanted, recognise(samples))

    def _timed(self, action: Callable[[Any], Any], argument: Any) -> tuple[Any, float | None]:
        """What the action gives, and the median of its times; the first call warms up and is not timed."""
        outcome, times = action(argument), []
        for _ in range(self._runs):
            started = time.perf_counter()
            action(argument)
            times.append(time.perf_counter() - started)
        return outcome, statistics.median(times) if times else None

    def _speed(self) -> AudioSpeed | None:
        if not self._runs or not self._items:
            return None
        seconds = sum(one.duration_s for one in self._items)
        return AudioSpeed(
            encode_rtf=sum(one.encode_s or 0.0 for one in self._items) / seconds,
            decode_rtf=sum(one.decode_s or 0.0 for one in self._items) / seconds,
            runs=self._runs,
            threads=native.thread_count(self._threads),
        )


class _Item:
    """A clip's figures before the tables of all clips are known; its codes are kept as counts."""

    def __init__(
        self,
        name: str,
        codes: Codes,
        duration_s: float,
        encode_s: float | None,
        decode_s: float | None,
        kept: Mapping[str, Sequence[float]],
    ) -> None:
        self.counts = CodeCounts.per_codebook(codes)
        self.duration_s, self.encode_s, self.decode_s = duration_s, encode_s, decode_s
        self.levels: dict[int, tuple[float, AudioQuality, Mapping[str, AudioPeerResult]]] = {}
        self._name, self._kept = name, kept

    def result(self, tables: Sequence[CodeCounts]) -> AudioItem:
        """The clip's row."""
        entropy = np.cumsum([own.bits_under(table) for own, table in zip(self.counts, tables, strict=True)])
        return AudioItem(
            name=self._name,
            duration_s=self.duration_s,
            encode_s=self.encode_s,
            decode_s=self.decode_s,
            levels=tuple(
                AudioLevel(k, bits / self.duration_s, float(entropy[k - 1]) / self.duration_s, quality, peers)
                for k, (bits, quality, peers) in self.levels.items()
            ),
            stability={change: tuple(shares) for change, shares in self._kept.items()},
        )


def _chosen_levels(tokenizer: Tokenizer[Waveform], levels: Sequence[int] | None) -> dict[int, Callable[[Codes], Any]]:
    decoders = level_decoders(tokenizer)
    total = tokenizer.spec.num_codebooks
    if levels is None:
        levels = [k for k in decoders if total <= MOST_LEVELS or k & (k - 1) == 0 or k == total]
    if unknown := [k for k in levels if k not in decoders]:
        allowed = ", ".join(map(str, decoders))
        raise SpecError(f"levels {', '.join(map(str, unknown))}: {tokenizer.spec.kind!r} decodes {allowed}")
    return {k: decoders[k] for k in sorted(levels)}


def _picture(wave: Waveform, original: Waveform) -> NDArray[np.float32]:
    """A spectrogram [1, 2 * bands, F] in dB below the original's loudest, low bands at the bottom."""
    rate = original.sample_rate_hz
    hop = 2 * round(rate / 160)
    mel = MelSpectrogram(rate, hop, 3 * hop, 1 << (4 * hop - 1).bit_length(), PICTURE_MELS)
    highest = max(float(mel.energies(original.samples[0]).max()), 1e-12)
    levels = 10 * np.log10(np.maximum(mel.energies(to_mono(wave, rate)) / highest, 10 ** (-PICTURE_RANGE_DB / 10)))
    return np.repeat(levels.T[::-1], 2, axis=0)[None].astype(np.float32)
