"""Fit a mel-VQ tokenizer to sound: principal components, a linear prediction and residual k-means, in minutes.

The prediction reads what was decoded, and what is decoded depends on the codebooks; so both are fitted in turn, a few
rounds of: least squares for the prediction, codes of all clips with it (a closed loop, all clips side by side),
k-means on what the prediction missed. There is no net and no gradient.

n clips of T patches, L levels of a patch, D latents, P patches that a prediction reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from multitok.codebook import nearest_code
from multitok.errors import InputError, SpecError
from multitok.frontend.resample import to_mono
from multitok.frontend.spectrogram import MelSpectrogram
from multitok.nets.vocoder import ExactVocoder
from multitok.protocol import Waveform
from multitok.tokenizers._mel_latents import (
    BASIS_SCALE,
    LATENT_SCALE,
    MOST_LATENT,
    PREDICTION_SCALE,
    ResidualBeam,
    ScalarGroups,
)
from multitok.tokenizers.audio_mel_vq import AudioMelVq, levels_of
from multitok.train.kmeans import train_kmeans

CLIP_FRAMES = 160  # 2 s: long enough for a closed loop to settle
MOST_GAIN_DB = 30.0
# Vectors that one k-means sees at most.
MOST_VECTORS = 200_000
# Of the diagonal: keeps the prediction from making much of what hardly varies.
RIDGE = 1e-4
# What a patch leaves to the next one at most: so that what is decoded forgets, and never runs away.
MOST_MEMORY = 0.99

Floats = NDArray[np.float32]


def train_mel_vq(
    waves: Iterable[Waveform],
    *,
    quantizer: Literal["residual", "scalar"] = "residual",
    codebook_sizes: Sequence[int] = (1024,) * 6,
    latent_dim: int = 64,
    patch_frames: int = 1,
    past_patches: int = 2,
    floor_log10: float = -6.0,
    loudness_db: tuple[float, float] = (-38.0, -14.0),
    max_clips: int = 2_000,
    rounds: int = 3,
    iterations: int = 10,
    beam: int = 4,
    vocoder: ExactVocoder | None = None,
    seed: int = 0,
    name: str = "audio",
) -> AudioMelVq:
    """A mel-VQ tokenizer that fits `waves`.

    Args:
        waves: Clips; each is cut into pieces of two seconds, and each piece used once, at one loudness.
        quantizer: "residual" for codebooks by k-means, "scalar" for even steps of single latents (FSQ).
        codebook_sizes: V of each codebook; "scalar" takes them as upper limits.
        latent_dim: D, principal components kept.
        patch_frames: Frames (80 a second) that a code stands for.
        past_patches: P; 0 predicts nothing.
        floor_log10: See `AudioMelVq`.
        loudness_db: Root mean square that each piece is brought to, drawn evenly, relative to full scale.
        max_clips: Pieces used, drawn evenly; bounds the memory at 0.3 MB each.
        rounds: Of prediction and codebooks in turn.
        iterations: k-means passes of each codebook in each round.
        beam: See `ResidualBeam`.
        vocoder: What the tokenizer decodes by.
        seed: Fixes every draw.
        name: The tokenizer's name inside a vocabulary.

    Returns:
        A tokenizer at 16 kHz.

    Raises:
        InputError: No sound.
        SpecError: A number that cannot be.
    """
    mel = MelSpectrogram(16_000, 200, 600, 1024, 80)
    length = patch_frames * mel.num_mels
    if not 1 <= latent_dim <= length or past_patches < 0 or rounds < 1:
        raise SpecError(
            f"latent_dim={latent_dim}, past_patches={past_patches}, rounds={rounds}: give 1 to {length} latents, "
            "0 past patches or more, and a round"
        )
    rng = np.random.default_rng(seed)
    clips = _clips(waves, mel, floor_log10, loudness_db, max_clips, rng)
    patches = clips[:, : CLIP_FRAMES // patch_frames * patch_frames].reshape(len(clips), -1, length)
    mean = np.rint(patches.reshape(-1, length).mean(axis=0, dtype=np.float64)).astype(np.int16)
    centred = (patches - mean).astype(np.float32)
    basis = np.rint(_principal_components(centred.reshape(-1, length), latent_dim) * BASIS_SCALE).astype(np.int16)
    latents = np.rint(centred @ basis.astype(np.float32) * np.float32(LATENT_SCALE / BASIS_SCALE))
    decoded = latents
    prediction = np.zeros((past_patches * latent_dim, latent_dim), np.int16)
    parts: ResidualBeam | ScalarGroups | None = None
    codebooks: list[NDArray[np.int16]] = []
    for _ in range(rounds):
        prediction = _fit_prediction(latents, decoded, past_patches)
        if parts is None:
            predicted = _features(decoded, past_patches) @ _entries(prediction)
        else:
            predicted = _closed_loop(latents, prediction, parts)[1]
        missed = (latents - predicted).reshape(-1, latent_dim)
        chosen = np.sort(rng.permutation(len(missed))[:MOST_VECTORS])
        if quantizer == "scalar":
            parts = _scalar(missed[chosen], codebook_sizes)
        else:
            codebooks = _codebooks(missed[chosen], codebook_sizes, codebooks, iterations, seed)
            parts = ResidualBeam(codebooks, beam)
        decoded = _closed_loop(latents, prediction, parts)[0]
    assert parts is not None
    return AudioMelVq(
        mean=mean, basis=basis, prediction=prediction, quantizer=parts, vocoder=vocoder, mel=mel,
        patch_frames=patch_frames, floor_log10=floor_log10, name=name,
    )  # fmt: skip


def _clips(
    waves: Iterable[Waveform],
    mel: MelSpectrogram,
    floor_log10: float,
    loudness_db: tuple[float, float],
    max_clips: int,
    rng: np.random.Generator,
) -> NDArray[np.int16]:
    """[n, T, M] levels of pieces, each with the same chance: those with the smallest of random keys."""
    kept: list[tuple[float, NDArray[np.int16]]] = []
    size = CLIP_FRAMES * mel.hop_length
    for wave in waves:
        samples = to_mono(wave, mel.sample_rate_hz)
        for start in range(0, samples.size, size):
            piece = np.zeros(size, np.float32)
            given = samples[start : start + size]
            piece[: given.size] = given
            key, wanted_db = rng.random(), rng.uniform(*loudness_db)
            if len(kept) >= max_clips and key >= kept[max_clips - 1][0]:
                continue
            own_db = 10 * np.log10(np.square(given, dtype=np.float64).mean() + 1e-12)
            piece *= np.float32(10 ** (min(wanted_db - own_db, MOST_GAIN_DB) / 20))
            kept.append((key, levels_of(mel.energies(piece), floor_log10).astype(np.int16)))
            if len(kept) >= 2 * max_clips:
                kept = sorted(kept, key=lambda item: item[0])[:max_clips]
    if not kept:
        raise InputError("no sound to fit a tokenizer to: give some minutes of the sound you want to encode")
    return np.stack([levels for _, levels in sorted(kept, key=lambda item: item[0])[:max_clips]])


def _principal_components(centred: Floats, count: int) -> NDArray[np.float64]:
    moments = centred.T.astype(np.float64) @ centred.astype(np.float64)
    basis: NDArray[np.float64] = np.linalg.eigh(moments)[1][:, ::-1][:, :count]
    # An eigenvector's sign is arbitrary: make its largest entry positive.
    signed: NDArray[np.float64] = basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(count)])
    return signed


def _features(decoded: Floats, past: int) -> Floats:
    """[n, T, P * D] decoded latents before each patch, the latest first."""
    before = np.pad(decoded, [(0, 0), (past, 0), (0, 0)])
    parts = [before[:, past - 1 - i : past - 1 - i + decoded.shape[1]] for i in range(past)]
    return np.concatenate([np.zeros((*decoded.shape[:2], 0), np.float32), *parts], axis=2)


def _entries(prediction: NDArray[np.int16]) -> Floats:
    return np.asarray(prediction / PREDICTION_SCALE, np.float32)


def _fit_prediction(latents: Floats, decoded: Floats, past: int) -> NDArray[np.int16]:
    dim = latents.shape[2]
    if not past:
        return np.zeros((0, dim), np.int16)
    gram, cross = np.zeros((past * dim, past * dim)), np.zeros((past * dim, dim))
    for wanted, given in zip(latents, decoded, strict=True):
        features = _features(given[None], past)[0].astype(np.float64)
        gram += features.T @ features
        cross += features.T @ wanted.astype(np.float64)
    gram[np.diag_indices(len(gram))] += RIDGE * np.trace(gram) / len(gram)
    entries = np.linalg.solve(gram, cross).reshape(past, dim, dim)
    # Each patch's share shrinks by one more power, which shrinks all eigenvalues of the recursion alike.
    recursion = np.eye(past * dim, k=dim)
    recursion[:, :dim] = entries.reshape(past * dim, dim)
    largest = float(np.abs(np.linalg.eigvals(recursion)).max())
    shrunk = entries * min(1.0, MOST_MEMORY / largest) ** np.arange(1, past + 1)[:, None, None]
    rounded: NDArray[np.int16] = np.rint(np.clip(shrunk.reshape(-1, dim) * PREDICTION_SCALE, -32_767, 32_767)).astype(
        np.int16
    )
    return rounded


def _closed_loop(
    latents: Floats, prediction: NDArray[np.int16], parts: ResidualBeam | ScalarGroups
) -> tuple[Floats, Floats]:
    """What all clips decode to, and what was predicted for them: the tokenizer's arithmetic, without its beam."""
    entries, past = _entries(prediction), len(prediction) // latents.shape[2]
    before = np.zeros((len(latents), past, latents.shape[2]), np.float32)
    decoded, predicted = np.empty_like(latents), np.empty_like(latents)
    for t in range(latents.shape[1]):
        predicted[:, t] = np.rint(before.reshape(len(before), -1) @ entries)
        found = predicted[:, t] + _quantized(latents[:, t] - predicted[:, t], parts)
        decoded[:, t] = np.clip(found, -MOST_LATENT, MOST_LATENT)
        before = np.concatenate([decoded[:, None, t], before], axis=1)[:, :past]
    return decoded, predicted


def _quantized(missed: Floats, parts: ResidualBeam | ScalarGroups) -> Floats:
    if isinstance(parts, ScalarGroups):
        return np.stack([parts.encode(row)[1] for row in missed.astype(np.float64)]).astype(np.float32)
    left = missed
    for codebook in parts.codebooks:
        left = left - codebook[nearest_code(left, codebook)]
    return missed - left


def _codebooks(
    missed: Floats, sizes: Sequence[int], before: Sequence[NDArray[np.int16]], iterations: int, seed: int
) -> list[NDArray[np.int16]]:
    found = []
    for k, size in enumerate(sizes):
        # From samples, not k-means++: which would spend many codes on the rare, far vectors.
        start = before[k].astype(np.float32) if before else "sample"
        rows = train_kmeans(missed, size, seed=seed + k, iterations=iterations, start=start)
        codebook = np.rint(np.clip(rows, -32_767, 32_767)).astype(np.int16)
        found.append(codebook)
        values = codebook.astype(np.float32)
        missed = missed - values[nearest_code(missed, values)]
    return found


def _scalar(missed: Floats, sizes: Sequence[int]) -> ScalarGroups:
    """Levels go one by one to the latent whose error falls most for a bit; groups are as large as fits."""
    spread = missed.astype(np.float64).std(axis=0) + 1e-9
    levels = np.ones(missed.shape[1], np.int64)
    budget = float(np.log2(np.array(sizes, np.float64)).sum())
    while True:
        # The error of a uniform quantiser of L levels falls about as 1 / L^2.
        gain = spread**2 * (1 / levels**2 - 1 / (levels + 1) ** 2) / np.log2((levels + 1) / levels)
        best = int(gain.argmax())
        grown = levels.copy()
        grown[best] += 1
        groups = _grouped(grown.tolist(), sizes)
        if groups is None or np.log2(grown).sum() > budget:
            break
        levels = grown
    groups = _grouped(levels.tolist(), sizes)
    assert groups is not None
    return ScalarGroups(_steps(missed, levels), groups)


def _grouped(levels: list[int], sizes: Sequence[int]) -> list[list[int]] | None:
    """Neighbours as one code each, as many as fit; None where they need more codebooks."""
    last = max((i for i, count in enumerate(levels) if count > 1), default=0)
    groups: list[list[int]] = [[]]
    product = 1
    for count in levels[: last + 1]:
        if product * count > sizes[len(groups) - 1]:
            if len(groups) == len(sizes):
                return None
            groups, product = [*groups, []], 1
            if count > sizes[len(groups) - 1]:
                return None
        groups[-1].append(count)
        product *= count
    return groups


def _steps(missed: Floats, levels: NDArray[np.int64]) -> NDArray[np.int16]:
    """Of each latent, the step with the smallest squared error."""
    steps = np.ones(len(levels), np.int16)
    for i, count in enumerate(levels):
        values, spread = missed[:, i].astype(np.float64), float(missed[:, i].std()) + 1.0
        candidates = np.unique(np.rint(spread * np.geomspace(0.2, 4, 40) / np.sqrt(count)).clip(1, 32_767))
        middle = (count - 1) / 2
        errors = [
            np.square(values - (np.clip(np.rint(values / step + middle), 0, count - 1) - middle) * step).mean()
            for step in candidates
        ]
        steps[i] = candidates[int(np.argmin(errors))]
    return steps
