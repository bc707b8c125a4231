"""Still pictures and animations by Pillow: PNG, JPEG, WebP, GIF, BMP, TIFF -> uint8 [H, W, 3].

How a picture becomes RGB: the EXIF orientation is applied; transparency is composited over white; grey, palette,
CMYK and other modes are converted as Pillow does; 16-bit grey v becomes round(v / 257). Colour profiles are not
applied. Pictures of 32-bit integers or floats are refused: they have no agreed white.

A file cut short or with a wrong checksum is refused, never half decoded. JPEG, GIF, BMP and WebP carry no checksum,
so a flipped bit inside their data can go unseen. libjpeg and libtiff may print a line of their own about damage.

Shape letters: T frames, H rows, W columns.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError
from multitok.frontend.media.source import Source, check_size, guarded
from multitok.frontend.media.whole import check_whole, png_chunks
from multitok.protocol import Modality

if TYPE_CHECKING:
    from PIL import Image, ImageFile

_EXIF_ORIENTATION = 0x0112
_WARNINGS_LOCK = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """What a picture's header says.

    Args:
        height: Rows, after the EXIF orientation.
        width: Columns, after the EXIF orientation.
        num_frames: 1 for a still; more for an animation or a stack of pages.
    """

    height: int
    width: int
    num_frames: int


def read_header(source: Source, format_name: str) -> Picture:
    """Size and number of frames, without decoding a pixel.

    Args:
        source: Where the bytes are.
        format_name: `Format.name` of the picture.

    Returns:
        What the header says.

    Raises:
        InputError: A limit is exceeded.
        MediaError: Not such a picture.
    """
    with source.open() as file, _opened(source, file, format_name, whole=False) as image:
        width, height = _stored_size(image)
        if _transposition(source, image, file) in _swapping():
            width, height = height, width
        return Picture(height, width, _num_frames(source, image))


def chosen_modality(num_frames: int, allowed: tuple[Modality, ...]) -> Modality:
    """What a picture is read as: a video where it moves and may be one, or where nothing else is allowed."""
    if len(allowed) == 1:
        return allowed[0]
    return Modality.VIDEO if num_frames > 1 and Modality.VIDEO in allowed else Modality.IMAGE


def decode_picture(source: Source, format_name: str, allowed: tuple[Modality, ...]) -> NDArray[np.uint8]:
    """A still picture or an animation as RGB. Frame durations are dropped.

    Args:
        source: Where the bytes are.
        format_name: `Format.name` of the picture.
        allowed: What it may be read as.

    Returns:
        uint8 [H, W, 3], or [T, H, W, 3] where `chosen_modality` says video.

    Raises:
        InputError: A limit is exceeded.
        MediaError: Cut short, damaged, or of several frames where only a still is allowed.
    """
    with source.open() as file, _opened(source, file, format_name, whole=True) as image:
        num_frames = _num_frames(source, image)
        if chosen_modality(num_frames, allowed) is Modality.VIDEO:
            return _frames(source, image, num_frames)
        if num_frames > 1:
            raise MediaError(
                f"{source.name}: holds {num_frames:,} frames or pages, not one image; "
                f"give modality={'volume' if format_name == 'tiff' else 'video'!r}, or save the one you want"
            )
        _load(image, 0)
        turn = _transposition(source, image, file)
        return _to_rgb(source, image if turn is None else image.transpose(turn))


def decode_stack(source: Source) -> NDArray[np.float32]:
    """The grey pages of a TIFF file as slices of a volume, values as stored.

    Args:
        source: Where the bytes are.

    Returns:
        [Z, Y, X] float32.

    Raises:
        InputError: A limit is exceeded.
        MediaError: Cut short, damaged, in colour, or pages of several sizes.
    """
    with source.open() as file, _opened(source, file, "tiff", whole=True) as image:
        num_pages = _num_frames(source, image)
        width, height = image.size
        what = f"{num_pages:,} pages of {width:,} x {height:,}"
        check_size(source.name, what, num_pages * height * width * 4, source.limits)
        volume = np.empty((num_pages, height, width), np.float32)
        for z in range(num_pages):
            _load(image, z)
            if image.size != (width, height) or not (image.mode in ("1", "L", "F") or image.mode.startswith("I")):
                raise MediaError(
                    f"{source.name}: page {z} is {image.size[0]} x {image.size[1]} of mode {image.mode!r}; "
                    f"a volume needs grey pages, all {width} x {height}"
                )
            volume[z] = np.asarray(image)
        return volume


@contextmanager
def _opened(source: Source, file: BinaryIO, format_name: str, *, whole: bool) -> Iterator[ImageFile.ImageFile]:
    # The plug-in's class is called directly: `Image.open` would try every decoder Pillow has, and would warn of or
    # refuse large pictures by a limit of its own before ours could be named.
    if whole:
        with guarded(source.name, f"{format_name.upper()} image"):
            check_whole(source.name, file, format_name)
    with guarded(source.name, f"{format_name.upper()} image"), _quiet():
        image = _plugin(format_name)(file)
    try:
        _check_pixels(source, image)
        with guarded(source.name, f"{format_name.upper()} image"):
            yield image
    finally:
        image.close()


def _plugin(format_name: str) -> type[ImageFile.ImageFile]:
    from PIL import (
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    return {
        "png": PngImagePlugin.PngImageFile,
        "jpeg": JpegImagePlugin.JpegImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
        "gif": GifImagePlugin.GifImageFile,
        "bmp": BmpImagePlugin.BmpImageFile,
        "tiff": TiffImagePlugin.TiffImageFile,
    }[format_name]


@contextmanager
def _quiet() -> Iterator[None]:
    # The filters of `warnings` are global: two threads that change them at once would leave them changed.
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_pixels(source: Source, image: Image.Image) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise MediaError(f"{source.name}: an image of {width} x {height} pixels has nothing to read")
    if width * height > source.limits.max_pixels:
        raise InputError(
            f"{source.name}: {width:,} x {height:,} is {width * height:,} pixels; "
            f"the limit is max_pixels={source.limits.max_pixels:,}"
        )


def _num_frames(source: Source, image: ImageFile.ImageFile) -> int:
    with _quiet():
        num_frames = int(getattr(image, "n_frames", 1))  # Pillow's stills-only formats have no such attribute
    if num_frames > source.limits.max_frames:
        raise InputError(f"{source.name}: {num_frames:,} frames; the limit is max_frames={source.limits.max_frames:,}")
    return num_frames


def _load(image: ImageFile.ImageFile, frame: int) -> None:
    with _quiet() if image.format == "TIFF" else nullcontext():  # the only decoder that warns while it decodes
        image.seek(frame)
        image.load()


def _frames(source: Source, image: ImageFile.ImageFile, num_frames: int) -> NDArray[np.uint8]:
    width, height = image.size
    what = f"{num_frames:,} frames of {width:,} x {height:,}"
    check_size(source.name, what, num_frames * height * width * 3, source.limits)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for t in range(num_frames):
        _load(image, t)
        if image.size != (width, height):
            raise MediaError(f"{source.name}: frame {t} is {image.size[0]} x {image.size[1]}, not {width} x {height}")
        frames[t] = _to_rgb(source, image)
    return frames


def _transposition(source: Source, image: ImageFile.ImageFile, file: BinaryIO) -> Image.Transpose | None:
    """How to turn the picture upright by its EXIF orientation; None where it is, or where EXIF is unreadable."""
    from PIL.Image import Transpose

    if image.format == "PNG" and "exif" not in image.info:
        # Pillow would decode all pixels to look for an eXIf chunk behind them.
        position = file.tell()
        late = b"eXIf" in png_chunks(source.name, file, check=False)
        file.seek(position)
        if not late:
            return None
    try:
        with _quiet():
            orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # damaged metadata of an intact picture
        return None
    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation if isinstance(orientation, int) else 1)


def _stored_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

    if isinstance(image, TiffImageFile):  # whose size is the upright one, before the pixels already turn
        return int(image.tag_v2[IMAGEWIDTH]), int(image.tag_v2[IMAGELENGTH])
    return image.size


def _swapping() -> tuple[Image.Transpose, ...]:
    from PIL.Image import Transpose

    return Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90


def _to_rgb(source: Source, image: Image.Image) -> NDArray[np.uint8]:
    from PIL import Image as pillow

    mode = image.mode
    if mode in ("I", "F") and image.format != "PNG":
        raise MediaError(
            f"{source.name}: pixels are 32-bit {'integers' if mode == 'I' else 'floats'}, an image has 8 or 16 bits; "
            "convert it, or read it with modality='volume'"
        )
    if mode.startswith("I"):
        grey = ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = pillow.new("RGBA", rgba.size, (255, 255, 255, 255))
        white.alpha_composite(rgba)
        image = white
    return np.array(image if image.mode == "RGB" else image.convert("RGB"), order="C")
