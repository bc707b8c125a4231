"""Patch tokenizers from raw images, clips or volumes: sample patches, find the basis, run residual k-means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, SpecError
from multitok.frontend.patches import to_patches
from multitok.protocol import Modality
from multitok.tokenizers._patch_rvq import BASIS_SCALE, PatchRvq
from multitok.tokenizers.image_patch import ImagePatch
from multitok.tokenizers.video_patch import VideoPatch
from multitok.tokenizers.volume_patch import VolumePatch
from multitok.train.kmeans import train_residual_kmeans

CLASSES: dict[Modality, type[PatchRvq]] = {
    Modality.IMAGE: ImagePatch,
    Modality.VIDEO: VideoPatch,
    Modality.VOLUME: VolumePatch,
}
# Patches in one product when the second moments are summed.
BLOCK_PATCHES = 2**14


def train_patch_tokenizer(
    modality: Modality | str,
    raws: Iterable[NDArray[Any]],
    *,
    patch: Sequence[int],
    codebook_sizes: Sequence[int],
    latent_dim: int,
    seed: int = 0,
    max_patches: int = 400_000,
    iterations: int = 20,
    name: str | None = None,
    window: Sequence[float] | None = None,
) -> PatchRvq:
    """Train a patch tokenizer: principal components of the patches, then residual k-means on the latents.

    Args:
        modality: "image", "video" or "volume".
        raws: Raw arrays of that modality; read once, one at a time.
        patch: Size of a patch along each grid axis.
        codebook_sizes: Size of each codebook, coarsest first.
        latent_dim: D, principal components kept; at most the values in a patch.
        seed: Fixes the sample and every start; the same raws and seed give the same tokenizer.
        max_patches: Patches to train on, drawn evenly from all; bounds the memory.
        iterations: k-means passes for each codebook.
        name: Name inside a vocabulary; None takes the modality's.
        window: (low, high) intensities of volumes, for them only; None takes (0, 1).

    Returns:
        A new tokenizer.

    Raises:
        SpecError: Another modality, a size that cannot be, or a window for pixels.
        InputError: There are no raws.
    """
    cls = CLASSES.get(Modality(modality))
    if cls is None:
        raise SpecError(f"modality {str(modality)!r}: patch tokenizers are trained for {', '.join(CLASSES)}")
    if len(patch) != len(cls.grid_axes) or min(patch) < 1:
        raise SpecError(f"patch={tuple(patch)}: give one size of 1 or more along each of {', '.join(cls.grid_axes)}")
    length = math.prod(patch) * cls.channels
    if not 1 <= latent_dim <= length:
        raise SpecError(f"latent_dim={latent_dim}: patches of {tuple(patch)} allow 1 to {length}")
    if window is not None and cls is not VolumePatch:
        raise SpecError(f"window={list(window)}: only volumes have one, pixels range from 0 to 255")
    options: dict[str, Any] = {"name": name} | ({} if window is None else {"window": window})
    # A tokenizer with an all-zero basis checks the raws and turns patches into levels, as the trained one will.
    blank = _build(cls, np.zeros((length, 1)), [np.zeros((1, 1), np.float32)], patch, options)
    patches = _sample(blank, raws, max_patches, np.random.default_rng(seed))
    basis = _principal_components(blank, patches, latent_dim)
    stem = _build(cls, basis, [np.zeros((1, latent_dim), np.float32)], patch, options)
    latents = np.concatenate([stem.latents(block) for block in _blocks(patches)])
    quantizer = train_residual_kmeans(latents, codebook_sizes, seed=seed, iterations=iterations, finish=np.rint)
    return _build(cls, basis, quantizer.codebooks, patch, options)


def _build(
    cls: type[PatchRvq],
    basis: NDArray[np.float64],
    codebooks: Sequence[NDArray[np.float32]],
    patch: Sequence[int],
    options: Mapping[str, Any],
) -> PatchRvq:
    return cls(
        basis=np.rint(basis * BASIS_SCALE).astype(np.int16),
        codebooks=np.concatenate(codebooks).astype(np.int32),
        codebook_sizes=[len(codebook) for codebook in codebooks],
        patch=patch,
        **options,
    )


def _sample(blank: PatchRvq, raws: Iterable[NDArray[Any]], max_patches: int, rng: np.random.Generator) -> NDArray[Any]:
    """At most `max_patches` patches, each with the same chance: those with the smallest of random keys."""
    kept: list[NDArray[Any]] = []
    keys: list[NDArray[np.float64]] = []
    limit = np.inf
    for raw in raws:
        blank.check_raw(raw)
        patches = to_patches(raw.reshape(*raw.shape[: len(blank.grid_axes)], blank.channels), blank.spec.stride)
        key = rng.random(len(patches))
        below = key < limit
        kept.append(patches[below])
        keys.append(key[below])
        if sum(map(len, keys)) > 2 * max_patches:
            kept, keys, limit = _smallest(kept, keys, max_patches)
    if not kept:
        raise InputError("no raw items given: training needs at least one")
    kept, _, _ = _smallest(kept, keys, max_patches)
    return kept[0]


def _smallest(
    kept: list[NDArray[Any]], keys: list[NDArray[np.float64]], count: int
) -> tuple[list[NDArray[Any]], list[NDArray[np.float64]], float]:
    patches, key = np.concatenate(kept), np.concatenate(keys)
    if len(key) <= count:
        return [patches], [key], np.inf
    order = np.argsort(key, kind="stable")[:count]
    return [patches[order]], [key[order]], float(key[order[-1]])


def _principal_components(blank: PatchRvq, patches: NDArray[Any], count: int) -> NDArray[np.float64]:
    """[L, count] orthonormal directions with the largest second moment about level 0 (the stem subtracts no mean)."""
    moments = np.zeros((patches.shape[1],) * 2)
    for block in _blocks(patches):
        levels = blank.to_levels(block).astype(np.float64)
        moments += levels.T @ levels
    _, vectors = np.linalg.eigh(moments)
    basis: NDArray[np.float64] = vectors[:, ::-1][:, :count]
    # An eigenvector's sign is arbitrary: make its largest entry positive.
    largest = np.abs(basis).argmax(axis=0)
    basis *= np.sign(basis[largest, np.arange(count)])
    return basis


def _blocks(patches: NDArray[Any]) -> list[NDArray[Any]]:
    return [patches[start : start + BLOCK_PATCHES] for start in range(0, len(patches), BLOCK_PATCHES)]
