"""What the three patch tokenizers promise beyond the contract: exact tiling, any size, clear refusals."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from multitok.errors import InputError, ShapeError, SpecError
from multitok.protocol import Codes
from multitok.tokenizers import _patch_rvq
from multitok.tokenizers._patch_rvq import BASIS_SCALE, LATENT_SCALE, PatchRvq
from multitok.tokenizers.image_patch import ImagePatch
from multitok.tokenizers.video_patch import VideoPatch
from multitok.tokenizers.volume_patch import VolumePatch

SIZES = (16, 9, 5)


def make(cls: type[PatchRvq], patch: tuple[int, ...], dim: int = 6, **options: Any) -> PatchRvq:
    """A tokenizer with a random orthonormal basis and random codebooks of falling size."""
    rng = np.random.default_rng(0)
    length = int(np.prod(patch)) * cls.channels
    basis = np.linalg.qr(rng.standard_normal((length, length)))[0][:, : min(dim, length)]
    spread = cls.max_level * LATENT_SCALE * np.sqrt(length) / 4
    codebooks = [rng.standard_normal((n, basis.shape[1])) * spread / 3**k for k, n in enumerate(SIZES)]
    return cls(
        basis=np.rint(basis * BASIS_SCALE).astype(np.int16),
        codebooks=np.rint(np.concatenate(codebooks)).astype(np.int32),
        codebook_sizes=SIZES,
        patch=patch,
        **options,
    )


IMAGE, VIDEO = make(ImagePatch, (4, 4)), make(VideoPatch, (2, 3, 4))
VOLUME = make(VolumePatch, (2, 3, 4), window=(-10.0, 30.0))


def noise(tokenizer: PatchRvq, extent: tuple[int, ...], seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    if tokenizer is VOLUME:
        return (rng.random(extent, dtype=np.float32) * 50 - 15).astype(np.float32)
    return rng.integers(0, 256, (*extent, 3), dtype=np.uint8)


def reference(tokenizer: PatchRvq, raw: NDArray[Any], cell: tuple[int, ...]) -> list[int]:
    """Codes of one grid cell in Python integers, straight from the module's description."""
    stride, channels = tokenizer.spec.stride, tokenizer.channels
    levels = []
    for inner in np.ndindex(*stride):
        at = tuple(
            min(c * s + i, n - 1) for c, s, i, n in zip(cell, stride, inner, raw.shape[: len(stride)], strict=True)
        )
        for value in np.ravel(raw[at]).tolist():
            if channels == 3:
                levels.append(value - 128)
            else:
                levels.append(round(min(max((value + 10) / 40, 0), 1) * 4095) - 2048)
    tensors = tokenizer.get_tensors()
    columns = tensors["basis"].T.tolist()
    # Python's round, like the tokenizer's, takes halves to even.
    residual = [
        round(sum(w * v for w, v in zip(column, levels, strict=True)) * LATENT_SCALE / BASIS_SCALE)
        for column in columns
    ]
    codes, start = [], 0
    for size in SIZES:
        table = tensors["codebooks"][start : start + size].tolist()
        distances = [sum((r - c) ** 2 for r, c in zip(residual, row, strict=True)) for row in table]
        codes.append(distances.index(min(distances)))
        residual = [r - c for r, c in zip(residual, table[codes[-1]], strict=True)]
        start += size
    return codes


@pytest.mark.parametrize(
    ("tokenizer", "extent"), [(IMAGE, (7, 9)), (VIDEO, (3, 4, 5)), (VOLUME, (3, 4, 5))], ids=["2d", "2d+t", "3d"]
)
def test_codes_equal_integer_arithmetic(tokenizer: PatchRvq, extent: tuple[int, ...]) -> None:
    raw = noise(tokenizer, extent)
    codes = tokenizer.encode(raw)
    assert codes.extent == extent
    for cell in np.ndindex(*codes.grid):
        assert codes.values[(slice(None), *cell)].tolist() == reference(tokenizer, raw, cell)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([IMAGE, VIDEO, VOLUME]), st.data())
def test_tiles_give_the_codes_of_the_whole(tokenizer: PatchRvq, data: st.DataObject) -> None:
    stride = tokenizer.spec.stride
    extent = tuple(data.draw(st.integers(1, 17)) for _ in stride)
    raw = noise(tokenizer, extent)
    whole = tokenizer.encode(raw)
    axis = data.draw(st.integers(0, len(stride) - 1))
    cut = data.draw(st.integers(0, (extent[axis] - 1) // stride[axis])) * stride[axis]
    if cut:
        before, after = np.split(raw, [cut], axis=axis)
        parts = [tokenizer.encode(part) for part in (before, after)]
        assert np.array_equal(np.concatenate([part.values for part in parts], axis=axis + 1), whole.values)
        decoded = [tokenizer.decode(part) for part in parts]
        assert np.array_equal(np.concatenate(decoded, axis=axis), tokenizer.decode(whole))


@pytest.mark.parametrize("extent", [(1, 1), (1, 10_000), (10_000, 1), (3, 5), (4, 4), (5, 4)])
def test_any_picture_size(extent: tuple[int, int]) -> None:
    raw = noise(IMAGE, extent)
    codes = IMAGE.encode(raw)
    assert codes.grid == (-(-extent[0] // 4), -(-extent[1] // 4))
    assert codes.num_tokens == IMAGE.num_tokens(extent)
    assert IMAGE.decode(codes).shape == raw.shape


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = noise(IMAGE, (40, 52))
    codes, decoded = IMAGE.encode(raw), IMAGE.decode(IMAGE.encode(raw))
    monkeypatch.setattr(_patch_rvq, "BLOCK_PATCHES", 7)
    assert IMAGE.encode(raw) == codes
    assert np.array_equal(IMAGE.decode(codes), decoded)


def test_memory_layout_does_not_show() -> None:
    raw = noise(IMAGE, (12, 20))
    assert IMAGE.encode(np.asfortranarray(raw)) == IMAGE.encode(raw)
    assert IMAGE.encode(raw[::-1, ::-1]) == IMAGE.encode(raw[::-1, ::-1].copy())


def test_threads_and_processor_do_not_show() -> None:
    program = (
        "import hashlib, numpy as np, multitok\n"
        "raw = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)\n"
        "tokenizer = multitok.load('image-patch8')\n"
        "codes = tokenizer.encode(raw)\n"
        "print(hashlib.sha256(codes.values.tobytes() + tokenizer.decode(codes).tobytes()).hexdigest())\n"
    )
    outputs = set()
    # The second core type makes an x86 OpenBLAS add in another order, as it would on another machine.
    for setting in ({"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "2"}, {"OPENBLAS_CORETYPE": "Prescott"}):
        run = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, **setting}, capture_output=True, text=True, check=True
        )
        outputs.add(run.stdout.strip())
    assert len(outputs) == 1
    assert len(outputs.pop()) == hashlib.sha256().digest_size * 2


def test_a_complete_basis_and_a_fine_codebook_lose_little() -> None:
    # Gray patches of 1 x 1: the codebook holds every gray, so only rounding can be lost.
    gray = np.rint(np.full((3, 1), 3**-0.5) * BASIS_SCALE).astype(np.int16)
    grays = np.rint((np.arange(256) - 128) * 3**0.5 * LATENT_SCALE)[:, None].astype(np.int32)
    tokenizer = ImagePatch(basis=gray, codebooks=grays, codebook_sizes=[256], patch=(1, 1))
    raw = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert np.array_equal(tokenizer.decode(tokenizer.encode(raw)), raw)
    assert tokenizer.encode(raw).values[0, 0].tolist() == list(range(256))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"float32 of shape \[4, 4, 3\]: give uint8 \[H, W, 3\] .*\* 255\)\.round"),
        (np.zeros((4, 4, 3), np.uint16), r"give uint8 .*x >> 8"),
        (np.zeros((4, 4), np.uint8), r"gray pixels repeat the channel: np\.repeat\(x\[\.\.\., None\]"),
        (np.zeros((4, 4, 1), np.uint8), r"gray pixels repeat the channel: np\.repeat\(x, 3"),
        (np.zeros((4, 4, 4), np.uint8), "RGBA"),
        (np.zeros((3, 4, 5), np.uint8), "channels last"),
        (np.zeros((2, 4, 4, 3), np.uint8), "encode_batch"),
        (np.zeros((4, 4, 3), np.int64), r"int64 .* give uint8 \[H, W, 3\]"),
        ("picture.png", "given str: give a NumPy array"),
    ],
)
def test_wrong_pictures(raw: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        IMAGE.encode(raw)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), r"give uint8 \[T, H, W, 3\]"),
        (np.zeros((2, 3, 4, 5), np.uint8), "channels last"),
        (np.zeros((2, 4, 4, 4), np.uint8), "RGBA"),
    ],
)
def test_wrong_videos(raw: NDArray[Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        VIDEO.encode(raw)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((4, 4, 4)), r"float64 .* give float32 \[Z, Y, X\]; write x\.astype"),
        (np.zeros((4, 4, 4, 1), np.float32), "one channel"),
        (np.zeros((4, 4), np.float32), r"give float32 \[Z, Y, X\]"),
    ],
)
def test_wrong_volumes(raw: NDArray[Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        VOLUME.encode(raw)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_volumes_that_are_not_finite(bad: float) -> None:
    raw = np.zeros((3, 4, 5), np.float32)
    raw[2, 1, 3] = bad
    with pytest.raises(InputError, match=r"voxel \(2, 1, 3\) \(z, y, x\) is (nan|inf)"):
        VOLUME.encode(raw)


@pytest.mark.parametrize("tokenizer", [IMAGE, VIDEO, VOLUME], ids=["2d", "2d+t", "3d"])
def test_empty_axes(tokenizer: PatchRvq) -> None:
    rank = len(tokenizer.spec.stride)
    for axis in range(rank):
        with pytest.raises(InputError, match="every axis must be at least 1 long"):
            tokenizer.encode(noise(tokenizer, tuple(0 if i == axis else 4 for i in range(rank))))


def test_a_grid_that_does_not_fit_its_extent() -> None:
    codes = IMAGE.encode(noise(IMAGE, (8, 8)))
    with pytest.raises(ShapeError, match=r"extent \(8, 9\)"):
        IMAGE.decode(Codes(codes.values, (8, 9)))
    with pytest.raises(ShapeError, match=r"extent \(16, 4\)"):
        IMAGE.decode(Codes(codes.values, (16, 4)))


def test_a_window_clips() -> None:
    raw = np.full((2, 3, 4), 1e6, np.float32)
    assert VOLUME.encode(raw) == VOLUME.encode(np.full_like(raw, 30))
    assert VOLUME.encode(-raw) == VOLUME.encode(np.full_like(raw, -10))
    decoded = VOLUME.decode(VOLUME.encode(noise(VOLUME, (6, 7, 8))))
    assert decoded.min() >= -10
    assert decoded.max() <= 30
    assert VOLUME.window == (-10.0, 30.0)


@pytest.mark.parametrize("window", [(1.0, 1.0), (2.0, 1.0), (0.0, float("nan")), (0.0, float("inf")), (0.0,)])
def test_windows_that_cannot_be(window: tuple[float, ...]) -> None:
    with pytest.raises(SpecError, match="low < high"):
        make(VolumePatch, (2, 2, 2), window=window)


def state(**changes: Any) -> dict[str, Any]:
    return {**IMAGE.get_config(), **IMAGE.get_tensors(), **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": [4, 5]}, r"need int16 \[60, D\]"),
        ({"patch": [0, 4]}, "every side must be at least 1"),
        ({"patch": [4]}, "give one number"),
        ({"basis": np.zeros((48, 6), np.float32)}, r"basis is float32 .* need int16 \[48, D\]"),
        ({"codebook_sizes": [16, 9]}, r"need int32 \[25, 6\]"),
        ({"codebooks": np.zeros((30, 5), np.int32)}, r"need int32 \[30, 6\]"),
        ({"codebooks": np.full((30, 6), 2**24, np.int32)}, r"from 2\^24 on they would be rounded"),
    ],
)
def test_states_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ImagePatch(**state(**changes))


def test_state_is_copied() -> None:
    given = state()
    tokenizer = ImagePatch(**given)
    raw = noise(IMAGE, (8, 8))
    given["basis"][:] = 0
    tokenizer.get_tensors()["codebooks"][:] = 0
    assert tokenizer.encode(raw) == IMAGE.encode(raw)
