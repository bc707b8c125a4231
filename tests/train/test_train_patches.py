"""Training patch tokenizers end to end on small synthetic data, and the sample they are trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from multitok.errors import InputError, ShapeError, SpecError
from multitok.protocol import Modality
from multitok.tokenizers._patch_rvq import BASIS_SCALE
from multitok.train.patches import train_patch_tokenizer
from tests import samples
from tests.contract import check_tokenizer

SMALL: dict[str, Any] = {"codebook_sizes": (16, 8), "latent_dim": 6, "iterations": 3}


def smooth(extent: tuple[int, ...], channels: int | None, seed: int) -> NDArray[np.uint8]:
    """A few sinusoids of low frequency in each channel."""
    rng = np.random.default_rng(seed)
    grids = np.meshgrid(*(np.linspace(0, 1, n) for n in extent), indexing="ij")
    planes = [
        np.sin(sum(rng.uniform(-9, 9) * grid for grid in grids) + rng.uniform(0, 6)) for _ in range(channels or 1)
    ]
    pixels = np.rint(127.5 + 120 * np.stack(planes, axis=-1)).astype(np.uint8)
    return pixels if channels else pixels[..., 0]


def raws(modality: str, count: int = 3) -> list[NDArray[Any]]:
    if modality == "image":
        return [smooth((45, 52), 3, i) for i in range(count)]
    if modality == "video":
        return [smooth((6, 30, 33), 3, i) for i in range(count)]
    return [(smooth((17, 18, 19), None, i) / 255).astype(np.float32) for i in range(count)]


CASES = [("image", (8, 8), {}), ("video", (2, 8, 8), {}), ("volume", (4, 4, 4), {"window": (0.0, 1.0)})]


@pytest.mark.parametrize(("modality", "patch", "options"), CASES)
def test_a_trained_tokenizer_passes_the_contract(
    modality: str, patch: tuple[int, ...], options: dict[str, Any], tmp_path: Path
) -> None:
    tokenizer = train_patch_tokenizer(modality, raws(modality), patch=patch, name="mine", **SMALL, **options)
    assert tokenizer.spec.modality == modality
    assert tokenizer.spec.name == "mine"
    assert tokenizer.spec.codebook_sizes == (16, 8)
    check_tokenizer(tokenizer, samples.raws(tokenizer), tmp_path)


@pytest.mark.parametrize(("modality", "patch", "options"), CASES)
def test_it_learns(modality: str, patch: tuple[int, ...], options: dict[str, Any]) -> None:
    tokenizer = train_patch_tokenizer(
        modality, raws(modality), patch=patch, codebook_sizes=(32, 16), latent_dim=12, iterations=5, **options
    )
    for raw in raws(modality):
        decoded = tokenizer.decode(tokenizer.encode(raw)).astype(np.float64)
        # One constant for all would leave the variance.
        assert np.mean((decoded - raw) ** 2) < 0.25 * raw.astype(np.float64).var()


def test_the_basis_is_orthonormal() -> None:
    tokenizer = train_patch_tokenizer("image", raws("image"), patch=(8, 8), **SMALL)
    basis = tokenizer.get_tensors()["basis"] / BASIS_SCALE
    assert np.allclose(basis.T @ basis, np.eye(6), atol=2e-3)


def test_the_seed_fixes_the_result() -> None:
    def tensors(seed: int, max_patches: int) -> dict[str, NDArray[Any]]:
        made = train_patch_tokenizer("image", raws("image"), patch=(8, 8), seed=seed, max_patches=max_patches, **SMALL)
        return made.get_tensors()

    first = tensors(1, 60)
    again, other, more = tensors(1, 60), tensors(2, 60), tensors(1, 80)
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not np.array_equal(first["codebooks"], other["codebooks"])
    assert not np.array_equal(first["codebooks"], more["codebooks"])


def test_the_sample_is_even() -> None:
    # 40 pictures of one patch each, all different: a sample of 10 must not favour the first or the last.
    pictures = [np.full((2, 2, 3), 6 * i, np.uint8) for i in range(40)]
    chosen = np.zeros(40)
    for seed in range(60):
        tokenizer = train_patch_tokenizer(
            "image", pictures, patch=(2, 2), codebook_sizes=(10,), latent_dim=1, max_patches=10, iterations=1, seed=seed
        )
        decoded = {int(tokenizer.decode(tokenizer.encode(picture))[0, 0, 0]) for picture in pictures}
        assert len(decoded) == 10
        chosen[[round(value / 6) for value in decoded]] += 1
    quarters = chosen.reshape(4, 10).sum(axis=1)
    assert quarters.sum() == 600
    assert quarters.min() > 110
    assert quarters.max() < 190


def test_wrong_arguments() -> None:
    with pytest.raises(SpecError, match="modality 'audio'"):
        train_patch_tokenizer(Modality.AUDIO, [], patch=(8,), **SMALL)
    with pytest.raises(SpecError, match=r"latent_dim=13: .* allow 1 to 12"):
        train_patch_tokenizer("image", [], patch=(2, 2), codebook_sizes=(4,), latent_dim=13)
    for patch in [(8,), (0, 8), (8, 8, 8)]:
        with pytest.raises(SpecError, match="give one size of 1 or more along each of h, w"):
            train_patch_tokenizer("image", [], patch=patch, **SMALL)
    with pytest.raises(SpecError, match="only volumes have one"):
        train_patch_tokenizer("image", [], patch=(8, 8), window=(0, 1), **SMALL)
    with pytest.raises(InputError, match="no raw items"):
        train_patch_tokenizer("image", [], patch=(8, 8), **SMALL)
    with pytest.raises(ShapeError, match="gray pixels"):
        train_patch_tokenizer("image", [np.zeros((9, 9), np.uint8)], patch=(8, 8), **SMALL)
