"""Known codecs: never above the limit, the best that is not, and decoded as their own decoders do."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from multitok.errors import SpecError
from multitok.metrics import PEERS, Peers, psnr
from multitok.metrics.peer_pictures import PictureCodec
from multitok.metrics.peer_video import ClipCodec, from_yuv420, to_yuv420
from multitok.protocol import Modality

DATA = Path(__file__).parent.parent.parent / "examples" / "data"


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    return np.asarray(Image.open(DATA / "photos" / "coffee.png").convert("RGB"))[100:196, 200:312]


@pytest.fixture(scope="module")
def clip(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([picture[t : t + 61, 2 * t : 2 * t + 83] for t in range(9)])


@pytest.fixture(scope="module")
def volume() -> NDArray[np.float32]:
    return np.ascontiguousarray(np.load(DATA / "volumes" / "brain.npy")[:11, 3:40, 5:50])


def test_jpeg_is_the_best_that_fits(picture: NDArray[np.uint8]) -> None:
    peers = Peers(picture, Modality.IMAGE, ["JPEG"])
    files = {}
    for quality in range(1, 96):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling="4:2:0", optimize=True)
        files[quality] = file.getvalue()
    for limit in (8 * len(files[1]), 12_000, 20_000, 40_000, 10**9):
        best = max(quality for quality, payload in files.items() if len(payload) * 8 <= limit)
        found = peers.best(limit)["JPEG"]
        assert (found.setting, found.num_bytes) == (best, len(files[best]))
        assert found.quality is not None
        assert found.quality.psnr_db == psnr(picture, np.asarray(Image.open(io.BytesIO(files[best]))))
    none = peers.best(8 * len(files[1]) - 1)["JPEG"]
    assert none.quality is None
    assert none.reason == f"its smallest file has {len(files[1]):,} bytes"


@pytest.mark.parametrize("name", PEERS[Modality.IMAGE])
def test_no_picture_is_above_its_limit_and_more_bits_are_no_worse(picture: NDArray[np.uint8], name: str) -> None:
    peers = Peers(picture, Modality.IMAGE, [name])
    before = -math.inf
    for limit in (16_000, 64_000, 32_000):  # in any order: what was tried before serves later
        found = peers.best(limit)[name]
        assert found.num_bytes is not None
        assert found.quality is not None
        assert 0.5 * limit < found.num_bytes * 8 <= limit
    ordered = [peers.best(limit)[name].quality for limit in (16_000, 32_000, 64_000)]
    for quality in ordered:
        assert quality is not None
        assert quality.psnr_db > before
        before = quality.psnr_db


@settings(max_examples=60)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=40), limits=st.lists(st.integers(1, 700), max_size=6))
def test_the_search_equals_trying_all(sizes: list[int], limits: list[int]) -> None:
    from multitok.metrics.peers import _Search

    sizes = sorted(sizes)

    class Sized:
        settings = range(len(sizes))

        def encode(self, raw: NDArray[Any], setting: float) -> bytes:
            return bytes(sizes[int(setting)])

        def decode(self, payload: bytes, raw: NDArray[Any]) -> NDArray[Any]:
            return raw

    search = _Search(Sized(), np.zeros((1, 1, 3), np.uint8), 0.0, None)
    for limit in limits:
        fitting = [index for index, size in enumerate(sizes) if size * 8 <= limit]
        assert search.best(limit).setting == (fitting[-1] if fitting else None)


@pytest.mark.parametrize("name", PEERS[Modality.VIDEO])
def test_a_clip_of_odd_size_fits_its_limit(clip: NDArray[np.uint8], name: str) -> None:
    peers = Peers(clip, Modality.VIDEO, [name])
    small, large = (peers.best(limit)[name] for limit in (16_000, 48_000))
    for found, limit in ((small, 16_000), (large, 48_000)):
        assert found.num_bytes is not None
        assert 0.7 * limit < found.num_bytes * 8 <= limit
    assert small.quality is not None
    assert large.quality is not None
    assert large.quality.psnr_db > small.quality.psnr_db + 2


def test_x264_is_counted_without_its_notes_and_still_decodes(clip: NDArray[np.uint8]) -> None:
    codec = ClipCodec("x264")
    stream = codec.encode(clip, 20)
    assert b"x264 - core" not in stream
    assert psnr(clip, codec.decode(stream, clip)) > 30


@pytest.mark.parametrize("name", PEERS[Modality.VOLUME])
def test_a_volume_fits_its_limit_in_its_own_range(volume: NDArray[np.float32], name: str) -> None:
    limit = volume.size * 1.5
    found = Peers(volume, Modality.VOLUME, [name], low=0.0, peak=1.0).best(limit)[name]
    hounsfield = volume * np.float32(2000) - np.float32(1000)
    other = Peers(hounsfield, Modality.VOLUME, [name], low=-1000.0, peak=2000.0).best(limit)[name]
    assert found.num_bytes is not None
    assert found.num_bytes * 8 <= limit
    assert found.quality is not None
    assert other.quality is not None
    assert found.quality.psnr_db > 28
    assert other.quality.psnr_db == pytest.approx(found.quality.psnr_db, abs=0.2)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 4), width=st.integers(1, 4), colour=st.tuples(*[st.integers(0, 255)] * 3))
def test_yuv_and_back_keeps_flat_colours(height: int, width: int, colour: tuple[int, int, int]) -> None:
    height, width = 2 * height, 2 * width
    pixels = np.broadcast_to(np.array(colour, np.uint8), (height, width, 3))
    back = from_yuv420(to_yuv420(pixels), height, width)
    assert back.shape == pixels.shape
    assert np.abs(back.astype(int) - pixels).max() <= 2


def test_chroma_is_not_shifted() -> None:
    ramp = np.linspace(40, 200, 32)
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :, 0] = ramp.round()
    pixels[:, :, 2] = ramp[::-1].round()
    back = from_yuv420(to_yuv420(pixels), 16, 32)
    assert np.abs(back.astype(int) - pixels)[:, 2:-2].max() <= 3


@pytest.mark.parametrize("modality", list(PEERS))
def test_the_smallest_items_give_a_row_or_a_reason(modality: Modality) -> None:
    raw: NDArray[Any] = {
        Modality.IMAGE: np.zeros((1, 1, 3), np.uint8),
        Modality.VIDEO: np.zeros((1, 1, 1, 3), np.uint8),
        Modality.VOLUME: np.zeros((1, 1, 1), np.float32),
    }[modality]
    for limit in (1, 10**6):
        for found in Peers(raw, modality, peak=1.0).best(limit).values():
            assert (found.quality is None) == bool(found.reason)
            assert found.num_bytes is None or found.num_bytes * 8 <= limit


def test_a_picture_that_a_format_cannot_hold_has_a_reason() -> None:
    found = Peers(np.zeros((1, 16_384, 3), np.uint8), Modality.IMAGE, ["WebP", "JPEG"]).best(10**7)
    assert found["WebP"].quality is None
    assert found["WebP"].reason
    assert found["JPEG"].quality is not None


def test_unknown_codecs_are_refused() -> None:
    raw = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(SpecError, match="'x264': the codecs for image are JPEG"):
        Peers(raw, Modality.IMAGE, ["x264"])
    with pytest.raises(SpecError, match="image, video, volume"):
        Peers(raw, Modality.TEXT)
    with pytest.raises(SpecError, match="give low and peak"):
        Peers(np.zeros((2, 2, 2), np.float32), Modality.VOLUME)


def test_a_file_is_never_taken_for_another_format(picture: NDArray[np.uint8]) -> None:
    webp = PictureCodec("WebP").encode(picture, 50)
    with pytest.raises(OSError, match="cannot identify"):
        PictureCodec("JPEG").decode(webp, picture)
