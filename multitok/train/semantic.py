"""Speech units from a front end and sound: codebooks, the table by which units become sound, and merges of units.

    sound -> front end -> features, kept in a file -> k-means for each size -> units -> table of decode, merges

Features are kept as float16 in a temporary file: 184 MB for an hour of 512 values. Costs the front end once over the
sound, and k-means on at most `max_frames` frames.

Shape letters: F frames, D values of a feature, V units, T units that a frame of sound depends on, M mel bands.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.codebook import Codebook
from multitok.errors import InputError, SpecError
from multitok.frontend.log_mel import log10
from multitok.frontend.resample import to_mono
from multitok.nets.whisper import in_int8
from multitok.protocol import Waveform
from multitok.tokenizers._semantic_codebooks import Codebooks
from multitok.tokenizers._semantic_frames import (
    PROJECTION_LIMIT,
    LogMelFrontEnd,
    MfccFrontEnd,
    RandomProjectionFrontEnd,
    log_mel,
)
from multitok.tokenizers._semantic_front_ends import FrontEnd
from multitok.tokenizers._semantic_sound import energy_mel
from multitok.tokenizers._semantic_transformers import TransformersFrontEnd
from multitok.tokenizers._semantic_windows import WhisperFrontEnd
from multitok.tokenizers._unit_bpe import UnitBpe, steady_units
from multitok.tokenizers.audio_semantic import FRAME_LENGTH, NEAR_UNITS, SAMPLE_RATE_HZ, AudioSemantic
from multitok.train.kmeans import train_kmeans
from multitok.train.unit_bpe import train_unit_bpe
from multitok.train.whisper_weights import read_whisper

NUM_MELS = 80
REACH = 2  # units to either side that a frame of sound depends on
MOST_SOUNDING_UNITS = 500  # the table's equations grow with the square of the units
RIDGE = 3.0
WHITENING = 0.8
ENERGY_FLOOR = 1e-6
CHANGE_PENALTY = 0.25  # of a change of unit before merging, in mean squared distances to the nearest unit
SILENCE_LOG10 = -2.5  # a unit this far below the loud frames of its clips, on average, is silence

Report = Callable[[str], None]


def train_semantic(
    waves: Iterable[Waveform],
    front_end: FrontEnd,
    *,
    codebook_sizes: Sequence[int] = (100, 500, 2000),
    codebook_size: int = 500,
    num_tokens: int | None = 4096,
    components: int | None = 256,
    max_frames: int = 200_000,
    iterations: int = 20,
    seed: int = 0,
    name: str = "speech",
    report: Report = lambda line: None,
) -> AudioSemantic:
    """A tokenizer of speech units.

    Args:
        waves: Clips of speech.
        front_end: What makes features.
        codebook_sizes: V of each codebook.
        codebook_size: Which of them the tokenizer uses.
        num_tokens: Units and merges together, for each codebook smaller than it; None trains no merges.
        components: Of `fit_codebooks`.
        max_frames: Frames that k-means sees, drawn evenly.
        iterations: Passes of k-means.
        seed: Of the draw and of k-means.
        name: Name inside a vocabulary.
        report: Told what is done.

    Returns:
        A tokenizer with all the codebooks.

    Raises:
        InputError: No clip, or one that cannot be encoded.
        SpecError: `codebook_size` is none of `codebook_sizes`.
    """
    if codebook_size not in codebook_sizes:
        raise SpecError(f"codebook_size={codebook_size}: give one of codebook_sizes, {tuple(codebook_sizes)}")
    with tempfile.TemporaryFile() as file:
        clips = _Clips(file, front_end)
        for wave in waves:
            clips.add(wave)
        if not clips.lengths:
            raise InputError("no waveform to train on: give some hours of the speech you want to encode")
        report(f"{len(clips.lengths):,} clips, {sum(clips.lengths) / 50 / 60:.1f} min")
        sample = clips.sample(max_frames, np.random.default_rng(seed))
        codebooks = fit_codebooks(
            sample, codebook_sizes, components=components, iterations=iterations, seed=seed, report=report
        )
        sounding = max((size for size in codebook_sizes if size <= MOST_SOUNDING_UNITS), default=min(codebook_sizes))
        table = fit_sound(clips.units(codebooks, sounding), clips.logs, sounding)
        units: dict[int, UnitBpe] = {}
        penalties: dict[int, float] = {}
        for size in codebook_sizes:
            if num_tokens is not None and size < num_tokens:
                found, penalties[size] = clips.steady_units(codebooks, size)
                silent = silent_units(found, clips.logs, size)
                units[size] = train_unit_bpe(found, num_units=size, num_tokens=num_tokens, silent=silent)
                report(f"{size} units, {silent.size} of them silent: {units[size].num_tokens:,} tokens")
    return AudioSemantic(
        front_end=front_end, codebooks=codebooks, codebook_size=codebook_size, sound=table, units=units,
        penalties=penalties, name=name,
    )  # fmt: skip


def make_front_end(name: str, layer: int) -> FrontEnd:
    """A front end by its name on the command line.

    Args:
        name: "log-mel", "mfcc", "whisper:PATH" with a CTranslate2 model.bin or a folder, or "hf:FOLDER" with a speech
            encoder of transformers.
        layer: Which layer's hidden states; of a Whisper from 1 on.

    Raises:
        SpecError: There is no front end of that name, or it has no such layer.
        CheckpointError: The files cannot be read.
    """
    kind, _, path = name.partition(":")
    if kind == "whisper" and path:
        return whisper_front_end(Path(path), layer)
    if kind == "hf" and path:
        found: FrontEnd = TransformersFrontEnd.read(Path(path), layer)
        return found
    if name == "log-mel":
        return LogMelFrontEnd()
    if name == "mfcc":
        return MfccFrontEnd()
    raise SpecError(f"front end {name!r}: give log-mel, mfcc, whisper:PATH or hf:FOLDER")


def whisper_front_end(path: Path, layer: int) -> WhisperFrontEnd:
    """A Whisper encoder up to a layer, its matrices in int8.

    Args:
        path: A CTranslate2 model.bin, its folder, or a folder of transformers.
        layer: How many layers are run, from 1.

    Raises:
        CheckpointError: No such file, a damaged one, one of another model, or one with fewer layers.
    """
    config, tensors = read_whisper(path, layer)
    return WhisperFrontEnd(**config.to_json(), tensors=in_int8(tensors))


def fit_codebooks(
    features: NDArray[np.floating[Any]],
    sizes: Sequence[int],
    *,
    components: int | None = None,
    iterations: int = 20,
    seed: int = 0,
    threads: int | None = None,
    report: Report = lambda line: None,
) -> Codebooks:
    """Clusters of features, in steps of int8.

    With `components` they are clusters of the leading principal components, each divided by its deviation to the power
    WHITENING: what tells phones apart is not what varies most. (Whisper-base, 500 units: PNMI .70 to .74.)

    Args:
        features: [F, D].
        sizes: V of each codebook.
        components: P; at most D. None clusters the normalised features themselves.
        iterations: Passes of k-means.
        seed: Of k-means.
        threads: Of the search; None for as many as there are.
        report: Told what is done.
    """
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    std = np.maximum(features.std(axis=0, dtype=np.float64), 1e-6).astype(np.float32)
    projection = projection_scale = None
    if components is not None:
        projection, projection_scale = _whitening((features - mean) / std, min(components, features.shape[1]))
    still = np.zeros((0, len(mean) if projection_scale is None else len(projection_scale)), np.float32)
    normalised = Codebooks(still, (), mean, std, None, projection, projection_scale).normalised(features)
    found = []
    for size in sorted(sizes):
        found.append(train_kmeans(normalised, size, iterations=iterations, seed=seed, threads=threads))
        report(f"codebook of {size}")
    values = np.concatenate(found)
    scale = (np.maximum(np.abs(values).max(axis=0), 1e-6) / 127).astype(np.float32)
    return Codebooks(
        np.rint(values / scale).astype(np.int8), tuple(sorted(sizes)), mean, std, scale, projection, projection_scale
    )


def _whitening(normalised: NDArray[Any], components: int) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """The projection [D, P] in steps of int16, and what a step of each column is worth [P]."""
    covariance = np.cov(normalised, rowvar=False)
    variances, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    variances, vectors = variances[::-1][:components], vectors[:, ::-1][:, :components]
    whitened = vectors / np.maximum(variances, 1e-6) ** (WHITENING / 2)
    scale = (np.abs(whitened).max(axis=0) / 32767).astype(np.float32)
    return np.rint(whitened / scale).astype(np.int16), scale


def fit_sound(
    units: Iterable[NDArray[np.int32]], logs: Iterable[NDArray[np.float32]], num_units: int
) -> NDArray[np.float16]:
    """The table [T, V, M] that predicts log energies from the units around a frame, by least squares.

    Args:
        units: [F] of each clip.
        logs: [F, M] of each clip, log10 of mel energies in the middle of each frame.
        num_units: V.
    """
    places, size = 2 * REACH + 1, (2 * REACH + 1) * num_units
    products, targets = np.zeros((size, size)), np.zeros((size, NUM_MELS))
    for clip, wanted in zip(units, logs, strict=True):
        padded = np.pad(clip, REACH, mode="edge")
        around = np.stack([padded[place : place + clip.size] + place * num_units for place in range(places)])
        for row in around:
            np.add.at(targets, row, wanted)
            for other in around:
                np.add.at(products, (row, other), 1.0)
    # Places other than the middle are pulled harder to 0: what the unit itself explains is its own.
    pull = np.repeat(np.where(np.arange(places) == REACH, RIDGE / 10, RIDGE), num_units)
    # The mean is left out of the pull, so that a unit that was never seen sounds like the average.
    count = max(products[:num_units, :num_units].trace(), 1.0)
    mean = targets[:num_units].sum(axis=0) / count
    targets -= products[:, REACH * num_units : (REACH + 1) * num_units].sum(axis=1, keepdims=True) * mean
    table = np.linalg.solve(products + np.diag(pull), targets).reshape(places, num_units, NUM_MELS)
    table[REACH] += mean
    return table.astype(np.float16)


def silent_units(
    units: Iterable[NDArray[np.int32]], logs: Iterable[NDArray[np.float32]], num_units: int
) -> NDArray[np.int32]:
    """Units whose frames are, on average, 25 dB below the loud frames of their clips.

    Args:
        units: [F] of each clip.
        logs: [F, M] of each clip, log10 of mel energies.
        num_units: V.
    """
    totals, counts = np.zeros(num_units), np.zeros(num_units)
    for clip, found in zip(units, logs, strict=True):
        loudness = found.mean(axis=1, dtype=np.float64)
        np.add.at(totals, clip, loudness - np.quantile(loudness, 0.95))
        np.add.at(counts, clip, 1)
    return np.flatnonzero(totals < SILENCE_LOG10 * np.maximum(counts, 1)).astype(np.int32)


def log_energies(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """[F, M] log10 of mel energies in the middle of each frame of 20 ms, of samples at 16 kHz."""
    mel = energy_mel(NUM_MELS)
    logs = log10(np.maximum(mel.energies(samples), ENERGY_FLOOR))
    frames = np.arange(-(-samples.size // FRAME_LENGTH))
    place = (frames + 0.5) * (FRAME_LENGTH / mel.hop_length) - 0.5
    low = np.minimum(place.astype(np.intp), len(logs) - 1)
    high = np.minimum(low + 1, len(logs) - 1)
    share = (place - low)[:, None]
    return np.asarray(logs[low] * (1 - share) + logs[high] * share, np.float32)


def random_projection(
    waves: Iterable[Waveform], *, dim: int = 16, num_mels: int = NUM_MELS, seed: int = 0
) -> RandomProjectionFrontEnd:
    """The front end of BEST-RQ: only the mean and deviation of the energies are taken from data.

    Args:
        waves: Clips of speech.
        dim: Values after the projection.
        num_mels: Mel bands.
        seed: Of the projection.

    Raises:
        InputError: No clip, or one that cannot be encoded.

    Source:
        Chiu et al. 2022, "Self-supervised Learning with Random-projection Quantizer for Speech Recognition".
    """
    rows = [log_mel(num_mels).run(to_mono(wave, SAMPLE_RATE_HZ)) for wave in waves]
    if not rows:
        raise InputError("no waveform to take the mean of: give some minutes of speech")
    joined = np.concatenate(rows)
    mean = np.tile(joined.mean(axis=0, dtype=np.float64), 2).astype(np.float32)
    std = np.tile(np.maximum(joined.std(axis=0, dtype=np.float64), 1e-3), 2).astype(np.float32)
    drawn = np.random.default_rng(seed).standard_normal((2 * num_mels, dim))
    projection = np.clip(np.rint(drawn * (PROJECTION_LIMIT / 4)), -PROJECTION_LIMIT, PROJECTION_LIMIT)
    return RandomProjectionFrontEnd(mean=mean, std=std, projection=projection.astype(np.int8))


def best_rq(
    waves: Iterable[Waveform], *, codebook_size: int = 8192, dim: int = 16, seed: int = 0, name: str = "speech"
) -> AudioSemantic:
    """A BEST-RQ tokenizer: a random projection and a random codebook, compared by angle; nothing is trained.

    Args:
        waves: Clips that the energies' mean and deviation are taken from.
        codebook_size: V.
        dim: Values after the projection.
        seed: Of both.
        name: Name inside a vocabulary.

    Raises:
        InputError: No clip, or one that cannot be encoded.
    """
    front_end = random_projection(waves, dim=dim, seed=seed)
    drawn = np.random.default_rng(seed + 1).standard_normal((codebook_size, dim))
    drawn /= np.sqrt((drawn * drawn).sum(axis=1, keepdims=True))
    still = np.zeros(dim, np.float32)
    codebooks = Codebooks(drawn.astype(np.float32), (codebook_size,), still, still + 1)
    return AudioSemantic(front_end=front_end, codebooks=codebooks, codebook_size=codebook_size, name=name)


class _Clips:
    """Features of clips in a file, and their log energies."""

    def __init__(self, file: Any, front_end: FrontEnd) -> None:
        self._file, self._front_end = file, front_end
        self.lengths: list[int] = []
        self.logs: list[NDArray[np.float32]] = []

    def add(self, wave: Waveform) -> None:
        samples = to_mono(wave, SAMPLE_RATE_HZ)
        state, first = self._front_end.step(self._front_end.initial_state(), samples)
        features = np.concatenate([first, self._front_end.finish(state)])
        self._file.write(features.astype(np.float16).tobytes())
        self.lengths.append(len(features))
        self.logs.append(log_energies(samples).astype(np.float16))

    def sample(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        total = sum(self.lengths)
        rows = np.sort(rng.choice(total, min(count, total), replace=False))
        return self._mapped()[rows].astype(np.float32)

    def units(self, codebooks: Codebooks, size: int) -> Iterator[NDArray[np.int32]]:
        codebook, mapped = Codebook(codebooks.of_size(size)), self._mapped()
        first = 0
        for length in self.lengths:
            features = mapped[first : first + length].astype(np.float32)
            yield codebook.search(codebooks.normalised(features)).codes
            first += length

    def steady_units(self, codebooks: Codebooks, size: int) -> tuple[list[NDArray[np.int32]], float]:
        """Units of each clip, and the penalty of a change that they were found with."""
        codebook, mapped = Codebook(codebooks.of_size(size)), self._mapped()
        ends = np.cumsum(self.lengths)
        found = [
            codebook.search(
                codebooks.normalised(mapped[end - length : end].astype(np.float32)),
                k=min(NEAR_UNITS, size),
                distances=True,
            )
            for length, end in zip(self.lengths, ends, strict=True)
        ]
        nearest = np.concatenate([each.distances[:, 0] for each in found])
        penalty = float(np.float32(CHANGE_PENALTY * nearest.mean()))
        return [steady_units(each.codes, each.distances, penalty) for each in found], penalty

    def _mapped(self) -> NDArray[np.float16]:
        self._file.flush()
        return np.memmap(self._file, np.float16, "r", shape=(sum(self.lengths), self._front_end.dim))
