"""How pixels become RGB, for every mode and every orientation."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multitok.errors import MediaError
from multitok.frontend.media import probe, read
from multitok.protocol import Modality
from tests.frontend.media.samples import clip, encoded_image, files, picture

RGB = picture()


def png_of(array: np.ndarray[Any, Any], mode: str | None = None) -> bytes:
    image = Image.fromarray(array)
    return encoded_image(image.convert(mode) if mode else image, "PNG")


@pytest.mark.parametrize("name", ["still.png", "lossless.webp", "still.bmp", "still.tif", "lzw.tif"])
def test_lossless_formats_give_the_pixels(name: str) -> None:
    assert np.array_equal(read(files()[name], name), RGB)


@pytest.mark.parametrize("name", ["still.jpg", "progressive.jpg", "still.webp", "palette.png", "still.gif"])
def test_lossy_formats_give_nearly_the_pixels(name: str) -> None:
    assert np.abs(read(files()[name], name).astype(int) - RGB).mean() < 12


@pytest.mark.parametrize("name", ["moving.apng", "moving.webp"])
def test_animations_give_the_frames(name: str) -> None:
    assert np.array_equal(read(files()[name], name), clip())


def test_grey_and_bilevel() -> None:
    grey = RGB[:, :, 0]
    assert np.array_equal(read(png_of(grey), "a.png"), np.repeat(grey[:, :, None], 3, axis=2))
    black_and_white = read(png_of(np.where(grey > 90, 255, 0).astype(np.uint8), "1"), "a.png")
    assert np.array_equal(black_and_white[:, :, 1], np.where(grey > 90, 255, 0))


def test_16_bit_grey_is_divided_by_257_and_rounded() -> None:
    deep = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    expected = np.round(deep / 257).astype(np.uint8)
    assert np.array_equal(read(png_of(deep), "a.png")[:, :, 2], expected)
    assert np.array_equal(read(encoded_image(Image.fromarray(deep), "TIFF"), "a.tif")[:, :, 2], expected)


def test_transparency_is_composited_over_white() -> None:
    alpha = np.linspace(0, 255, RGB.shape[0] * RGB.shape[1]).astype(np.uint8).reshape(RGB.shape[:2])
    rgba = np.dstack([RGB, alpha])
    weight = alpha[:, :, None] / 255
    expected = RGB * weight + 255 * (1 - weight)
    for data, name in ((png_of(rgba), "a.png"), (encoded_image(Image.fromarray(rgba), "TIFF"), "a.tif")):
        assert np.abs(read(data, name) - expected).max() <= 1
    grey_alpha = read(png_of(rgba, "LA"), "a.png")
    assert (grey_alpha[0, 0] == 255).all()


def test_a_transparent_palette_entry_is_white() -> None:
    indices = np.array([[0, 1], [1, 0]], np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    expected = np.array([[[255] * 3, [40, 50, 60]], [[40, 50, 60], [255] * 3]])
    assert np.array_equal(read(encoded_image(image, "PNG", transparency=0), "a.png"), expected)
    assert np.array_equal(read(encoded_image(image, "GIF", transparency=0), "a.gif"), expected)


def test_cmyk() -> None:
    data = encoded_image(Image.fromarray(RGB).convert("CMYK"), "TIFF")
    assert np.abs(read(data, "a.tif").astype(int) - RGB).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RGB, 1),
    }[orientation]
    for name in ("a.png", "a.tif", "a.webp"):
        options = {"lossless": True} if name == "a.webp" else {}
        format_name = {"a.png": "PNG", "a.tif": "TIFF", "a.webp": "WEBP"}[name]
        data = encoded_image(Image.fromarray(RGB), format_name, exif=exif, **options)
        assert np.array_equal(read(data, name), turned), name
        assert probe(data, name).extent == turned.shape[:2], name


def test_an_orientation_behind_the_pixels_of_a_png_counts() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = b"eXIf" + exif.tobytes()[6:]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    plain = files()["still.png"]
    data = plain[:-12] + chunk + plain[-12:]
    assert np.array_equal(read(data, "a.png"), np.rot90(RGB, -1))
    assert probe(data, "a.png").extent == (17, 12)


def test_a_broken_orientation_is_no_reason_to_refuse_a_photo() -> None:
    data = encoded_image(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x01")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(data, "a.jpg").shape == RGB.shape


def test_bytes_behind_the_end_are_ignored() -> None:
    for name in ("still.png", "still.jpg", "still.gif", "still.webp"):
        assert np.array_equal(read(files()[name] + b"trailing", name), read(files()[name], name))


def test_threads_read_alike_and_leave_the_warning_filters_alone() -> None:
    before = list(warnings.filters)
    results: list[bool] = []

    def work() -> None:
        results.extend(np.array_equal(read(files()["lzw.tif"], "a.tif"), RGB) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 80
    assert warnings.filters == before


def test_an_animation_that_grows_transparent_pixels_over_white() -> None:
    frames = [Image.fromarray(np.dstack([RGB, np.full(RGB.shape[:2], alpha, np.uint8)])) for alpha in (255, 0)]
    data = encoded_image(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:])
    video = read(data, "a.webp")
    assert np.array_equal(video[0], RGB)
    assert (video[1] == 255).all()
    assert probe(data, "a.webp").modality is Modality.VIDEO


def test_16_bit_colours_keep_their_high_byte() -> None:
    # Pillow writes no such picture: one row of two pixels, by hand.
    deep = np.array([[[0x1234, 0xFF80, 0x00FF], [0x8000, 0x7FFF, 0xFFFF]]], ">u2")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + deep.tobytes()))
    assert np.array_equal(read(data + chunk(b"IEND", b""), "a.png"), deep >> 8)


def test_cmyk_of_a_jpeg_and_a_profile_that_is_not_applied() -> None:
    smooth = np.repeat(np.repeat(RGB[:4, :4], 16, 0), 16, 1)
    data = encoded_image(Image.fromarray(smooth).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(read(data, "a.jpg").astype(int) - smooth).mean() < 8
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    with_profile = encoded_image(Image.fromarray(RGB), "PNG", icc_profile=profile)
    assert np.array_equal(read(with_profile, "a.png"), RGB)


def test_la_and_a_palette_with_alphas_are_composited_over_white() -> None:
    grey_alpha = np.dstack([RGB[:, :, 0], np.full(RGB.shape[:2], 51, np.uint8)])
    expected = RGB[:, :, :1] * 0.2 + 255 * 0.8
    data = encoded_image(Image.fromarray(grey_alpha, "LA"), "PNG")
    assert np.abs(read(data, "a.png") - expected).max() <= 1
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    half = encoded_image(image, "PNG", transparency=bytes([255, 102]))
    assert np.array_equal(read(half, "a.png"), [[[10, 20, 30], [169, 173, 177]]])


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_extreme_sizes(size: tuple[int, int], format_name: str) -> None:
    array = np.full((*size, 3), 200, np.uint8)
    name = f"a.{format_name.lower()}"
    options = {"lossless": True} if format_name == "WEBP" else {}
    data = encoded_image(Image.fromarray(array), format_name, **options)
    assert np.abs(read(data, name).astype(int) - array).max() <= 1
    assert probe(data, name).extent == size


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_refused(share: float, progressive: bool) -> None:
    large = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded_image(Image.fromarray(large), "JPEG", progressive=progressive)
    with pytest.raises(MediaError, match=r"^a\.jpg: "):
        read(data[: int(len(data) * share)], "a.jpg")
