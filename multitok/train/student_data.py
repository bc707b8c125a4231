"""What a student of speech units learns from: speech by voice, and a teacher's features with the voice taken out.

    sound of each voice -> one level -> teacher -> principal components -> minus the voice -> whitened -> targets
                                                                                        -> nearest clusters -> units

A voice's offset is how far its frames lie from the clusters they belong to, on average over clusters: so what the voice
happens to say does not count. Taking it out makes units of different voices alike, and the teacher's are not quite.

    speech.i16      all voices one after the other, whole frames of 20 ms, brought to one level clip by clip
    targets.f16     [F, D]
    units.i16       [F, S], one column for each size
    data.json       what it was made of, and [name, first frame, frames] of each voice

Shape letters: F frames, D values of a target, E values of the teacher's features, V clusters, S sizes of clusterings.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from multitok.codebook import Codebook
from multitok.protocol import Waveform
from multitok.tokenizers.audio_semantic import FRAME_LENGTH, SAMPLE_RATE_HZ, AudioSemantic
from multitok.train.kmeans import train_kmeans
from multitok.train.sound_pool import FULL_SCALE, SoundPool

SPEECH, TARGETS, UNITS, INDEX = "speech.i16", "targets.f16", "units.i16", "data.json"
# Root mean square that each clip is brought to, and the pause after it.
LEVEL, QUIETEST, PAUSE_S = 0.05, 1e-4, (0.02, 0.35)
# The teacher hears so much at once.
PIECE_S = 60
# Frames that components and clusters are fitted to, and passes of k-means.
SAMPLE_FRAMES, ITERATIONS = 200_000, 15
# Components are divided by this power of their deviation.
WHITENING = 0.7
# Clusters by which voices are compared, rounds of it, and frames below which a cluster counts for less.
VOICE_CLUSTERS, VOICE_ROUNDS, FEW_FRAMES = 100, 3, 10

Floats = NDArray[np.float32]


class Voice(NamedTuple):
    """Where a voice lies.

    Args:
        name: Of the voice.
        first: Its first frame.
        num_frames: How many it has.
    """

    name: str
    first: int
    num_frames: int


class StudentData(NamedTuple):
    """Speech and what a student is to make of it; all mapped into memory.

    Args:
        speech: [F * FRAME_LENGTH] int16.
        targets: [F, D] float16, of mean square 1.
        units: [F, S] int16.
        voices: In the order of their frames.
    """

    speech: NDArray[np.int16]
    targets: NDArray[np.float16]
    units: NDArray[np.int16]
    voices: list[Voice]


def student_data(
    pool: SoundPool,
    teacher: AudioSemantic,
    folder: Path,
    *,
    dim: int,
    sizes: Sequence[int],
    voice_of: Callable[[str], str],
    known: Mapping[str, Any],
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> StudentData:
    """Make the data, or find them made.

    Args:
        pool: Speech at the teacher's rate.
        teacher: Whose features are learned.
        folder: Where the files go, or are.
        dim: D.
        sizes: Clusters of each clustering.
        voice_of: The voice of a file, by its name in the pool.
        known: JSON values that tell these data from others; of the same ones nothing is made again.
        seed: Of pauses, samples and k-means.
        report: Told what is done.

    Returns:
        The data.
    """
    asked = {**known, "dim": dim, "sizes": list(sizes), "seed": seed}
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        index = {}
    if {key: index.get(key) for key in asked} != asked:
        folder.mkdir(parents=True, exist_ok=True)
        voices = _write(pool, teacher, folder, dim, sizes, voice_of, seed, report)
        staging = folder / f".{INDEX}.writing"
        staging.write_text(json.dumps({**asked, "voices": voices}, ensure_ascii=False), encoding="utf-8")
        staging.replace(folder / INDEX)
        index = {"voices": voices}
    voices = [Voice(*each) for each in index["voices"]]
    total = sum(voice.num_frames for voice in voices)
    return StudentData(
        np.memmap(folder / SPEECH, np.int16, "r"),
        np.memmap(folder / TARGETS, np.float16, "r", shape=(total, dim)),
        np.memmap(folder / UNITS, np.int16, "r", shape=(total, len(sizes))),
        voices,
    )


def _write(
    pool: SoundPool,
    teacher: AudioSemantic,
    folder: Path,
    dim: int,
    sizes: Sequence[int],
    voice_of: Callable[[str], str],
    seed: int,
    report: Callable[[str], None],
) -> list[Voice]:
    voices: list[Voice] = []
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryFile(dir=folder) as file:
        with (folder / SPEECH).open("wb") as speech:
            for name, numbers in _by_voice(pool, voice_of).items():
                first = count = sum(voice.num_frames for voice in voices)
                for piece in _pieces(pool, numbers, rng):
                    speech.write(np.rint(piece * (FULL_SCALE - 1)).astype("<i2").tobytes())
                    features = teacher.features(Waveform(piece[None], SAMPLE_RATE_HZ))
                    file.write(features.astype(np.float16).tobytes())
                    count += len(features)
                voices.append(Voice(name, first, count - first))
                report(f"{name}: {voices[-1].num_frames * FRAME_LENGTH / SAMPLE_RATE_HZ / 60:.1f} min")
        file.flush()
        total = sum(voice.num_frames for voice in voices)
        features = np.memmap(file, np.float16, "r", shape=(total, features.shape[1]))
        _write_targets(features, voices, folder, dim, sizes, seed, report)
    return voices


def _by_voice(pool: SoundPool, voice_of: Callable[[str], str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, name in enumerate(pool.names):
        found.setdefault(voice_of(name), []).append(number)
    return dict(sorted(found.items()))


def _pieces(pool: SoundPool, numbers: Sequence[int], rng: np.random.Generator) -> Iterator[Floats]:
    """The clips of a voice, levelled, a pause after each, in pieces of whole frames."""
    size = PIECE_S * SAMPLE_RATE_HZ
    held: list[Floats] = []
    for number in numbers:
        clip = pool.middle(number, pool.num_samples)
        level = float(np.sqrt(np.mean(np.square(clip))))
        if level > QUIETEST:
            clip = clip * np.float32(min(LEVEL / level, 1 / np.abs(clip).max()))
            held += [clip, np.zeros(int(rng.uniform(*PAUSE_S) * SAMPLE_RATE_HZ), np.float32)]
        while sum(part.size for part in held) >= size:
            joined = np.concatenate(held)
            yield joined[:size]
            held = [joined[size:]]
    if held:
        rest = np.concatenate(held)
        if rest.size:
            yield np.pad(rest, (0, -rest.size % FRAME_LENGTH))


def _write_targets(
    features: NDArray[np.float16],
    voices: Sequence[Voice],
    folder: Path,
    dim: int,
    sizes: Sequence[int],
    seed: int,
    report: Callable[[str], None],
) -> None:
    rng = np.random.default_rng([seed, 1])
    rows = np.sort(rng.choice(len(features), min(SAMPLE_FRAMES, len(features)), replace=False))
    owner = np.searchsorted([voice.first for voice in voices], rows, side="right") - 1
    sample = features[rows].astype(np.float32)
    mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    basis = _components(sample - mean, dim)
    sample = (sample - mean) @ basis
    offsets = voice_offsets(sample, owner, len(voices), seed=seed)
    sample -= offsets[owner]
    scale = _whitening(sample)
    sample /= scale
    codebooks = []
    for size in sizes:
        codebooks.append(Codebook(train_kmeans(sample, size, iterations=ITERATIONS, seed=seed)))
        report(f"{size} clusters")
    with (folder / TARGETS).open("wb") as targets, (folder / UNITS).open("wb") as units:
        for voice, offset in zip(voices, offsets, strict=True):
            for first in range(voice.first, voice.first + voice.num_frames, 4096):
                part = features[first : min(first + 4096, voice.first + voice.num_frames)].astype(np.float32)
                found = ((part - mean) @ basis - offset) / scale
                targets.write(found.astype("<f2").tobytes())
                codes = [codebook.search(found).codes for codebook in codebooks]
                units.write(np.stack(codes, axis=1).astype("<i2").tobytes())


def _components(centred: Floats, dim: int) -> Floats:
    """[E, D] the directions of most variance."""
    _, vectors = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
    return np.asarray(vectors[:, ::-1][:, :dim], np.float32)


def _whitening(sample: Floats) -> Floats:
    """[D] what components are divided by: strong ones more, so that a few of them do not decide the clusters."""
    scale = np.maximum(sample.std(axis=0, dtype=np.float64), 1e-6) ** WHITENING
    return np.asarray(scale * np.sqrt(np.square(sample / scale, dtype=np.float64).mean()), np.float32)


def voice_offsets(
    features: Floats, owner: NDArray[np.intp], num_voices: int, *, clusters: int = VOICE_CLUSTERS, seed: int = 0
) -> Floats:
    """How far each voice lies from the others, whatever it says.

    Args:
        features: [F, D] frames of all voices.
        owner: [F] whose they are.
        num_voices: W.
        clusters: By which voices are compared: about as many as there are sounds, so that none is a voice's own.
        seed: Of k-means.

    Returns:
        [W, D], weighted by frames they sum to 0; a voice of few frames is pulled to 0.
    """
    offsets = np.zeros((num_voices, features.shape[1]), np.float32)
    shares = np.bincount(owner, minlength=num_voices) / len(owner)
    size = min(clusters, len(features) // FEW_FRAMES)
    for _ in range(VOICE_ROUNDS):
        centred = features - offsets[owner]
        centres = train_kmeans(centred, size, iterations=ITERATIONS, seed=seed)
        code = Codebook(centres).search(centred).codes
        for voice in range(num_voices):
            mine = owner == voice
            counts = np.bincount(code[mine], minlength=size)
            sums = np.zeros_like(centres, np.float64)
            np.add.at(sums, code[mine], features[mine] - centres[code[mine]])
            means = sums / np.maximum(counts, 1)[:, None]
            weights = counts / (counts + FEW_FRAMES)
            offsets[voice] = (weights @ means) / max(weights.sum(), 1.0)
        offsets -= shares.astype(np.float32) @ offsets
    return offsets
