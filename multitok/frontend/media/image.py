"""Still pictures and animations by Pillow: PNG, JPEG, WebP, GIF, BMP, TIFF -> uint8 [H, W, 3].

How a picture becomes RGB: the EXIF orientation is applied; transparency is composited over white; grey, palette,
CMYK and other modes are converted as Pillow does; 16-bit grey v becomes round(v / 257), of 16-bit colours the high
byte stays. Colour profiles (ICC) are not applied: pixels keep the numbers they have in the file. Pictures of 32-bit
integers or floats are refused: they have no agreed white.

An animation is a clip: each frame is shown for as long as the file says, and one of no duration for 0.1 s, as in
browsers. As a still it is refused, unless the number of a frame is given. A page that a PNG shows only where animations
are not understood is no frame of it.

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
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError
from multitok.frontend.media.geometry import VolumeInfo, as_affine
from multitok.frontend.media.source import Source, check_size, guarded
from multitok.frontend.media.timing import Shown
from multitok.frontend.media.whole import check_whole, png_chunks
from multitok.protocol import Modality

if TYPE_CHECKING:
    from PIL import Image, ImageFile

_EXIF_ORIENTATION = 0x0112
_NO_DURATION = Fraction(1, 10)
_LARGEST_DENOMINATOR = 65_535
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


def decode_picture(
    source: Source, format_name: str, allowed: tuple[Modality, ...], frame: int | None
) -> NDArray[np.uint8] | None:
    """A still picture as RGB; None where `chosen_modality` says video: `shown_frames` gives that.

    Args:
        source: Where the bytes are.
        format_name: `Format.name` of the picture.
        allowed: What it may be read as.
        frame: Which frame or page to take as a still, from 0; None refuses a picture of several.

    Returns:
        uint8 [H, W, 3], or None.

    Raises:
        InputError: A limit is exceeded, or there is no such frame.
        MediaError: Cut short, damaged, or of several frames where only a still is allowed.
    """
    with source.open() as file, _opened(source, file, format_name, whole=True) as image:
        num_frames = _num_frames(source, image)
        if frame is None and chosen_modality(num_frames, allowed) is Modality.VIDEO:
            return None
        if frame is None and num_frames > 1:
            raise MediaError(
                f"{source.name}: holds {num_frames:,} frames or pages, not one image; "
                f"give modality={'volume' if format_name == 'tiff' else 'video'!r}, or frame=0 for the first"
            )
        if frame is not None and not 0 <= frame < num_frames:
            raise InputError(f"{source.name}: frame={frame}, but it has {num_frames:,} (0 to {num_frames - 1:,})")
        _load(image, _num_hidden(image) + (frame or 0))
        turn = _transposition(source, image, file)
        return _to_rgb(source, image if turn is None else image.transpose(turn))


def shown_frames(source: Source, format_name: str) -> Iterator[Shown]:
    """The frames of an animation with their times, one decoded at a time; a still is one frame.

    Args:
        source: Where the bytes are.
        format_name: `Format.name` of the picture.

    Yields:
        Frames; the pixels of one are to be asked for before the next is.

    Raises:
        InputError: A limit is exceeded.
        MediaError: Cut short or damaged.
    """
    with source.open() as file, _opened(source, file, format_name, whole=True) as image:
        width, height = image.size
        time = Fraction(0)
        first = _num_hidden(image)
        turn = _transposition(source, image, file)
        for t in range(_num_frames(source, image)):
            _load(image, first + t)
            if image.size != (width, height):
                raise MediaError(
                    f"{source.name}: frame {t} is {image.size[0]} x {image.size[1]}, not {width} x {height}"
                )
            duration = _duration(image)
            upright = image if turn is None else image.transpose(turn)
            # Converted at once, because the next frame takes this one's place.
            yield Shown(time, duration, partial(np.array, _to_rgb(source, upright)))
            time += duration


def decode_stack(source: Source) -> tuple[NDArray[np.float32], VolumeInfo]:
    """The grey pages of a TIFF file as slices of a volume, values as stored.

    Args:
        source: Where the bytes are.

    Returns:
        [Z, Y, X] float32, and the voxel sizes where ImageJ wrote them.

    Raises:
        InputError: A limit is exceeded.
        MediaError: Cut short, damaged, in colour, pages of several sizes, or fewer than ImageJ announces.
    """
    with source.open() as file, _opened(source, file, "tiff", whole=True) as image:
        num_pages = _num_frames(source, image)
        width, height = image.size
        what = f"{num_pages:,} pages of {width:,} x {height:,}"
        check_size(source.name, what, num_pages * height * width * 4, source.limits)
        info = _stack_place(source, image, num_pages)
        volume = np.empty((num_pages, height, width), np.float32)
        for z in range(num_pages):
            _load(image, z)
            if image.size != (width, height) or not (image.mode in ("1", "L", "F") or image.mode.startswith("I")):
                raise MediaError(
                    f"{source.name}: page {z} is {image.size[0]} x {image.size[1]} of mode {image.mode!r}; "
                    f"a volume needs grey pages, all {width} x {height}"
                )
            volume[z] = np.asarray(image)
        return volume, info


def _stack_place(source: Source, image: ImageFile.ImageFile, num_pages: int) -> VolumeInfo:
    from PIL.TiffImagePlugin import IMAGEDESCRIPTION, X_RESOLUTION, Y_RESOLUTION, TiffImageFile

    assert isinstance(image, TiffImageFile)
    description = str(image.tag_v2.get(IMAGEDESCRIPTION, ""))
    if not description.startswith("ImageJ="):
        return VolumeInfo()
    fields = dict(line.split("=", 1) for line in description.splitlines() if "=" in line)
    try:
        announced, step = int(fields.get("images", num_pages)), float(fields.get("spacing", 1))
        unit = {"cm": 10.0, "mm": 1.0, "micron": 1e-3, "um": 1e-3, "\\u00B5m": 1e-3, "nm": 1e-6}.get(
            fields.get("unit", "")
        )
        x, y = (1 / float(image.tag_v2.get(tag) or 1) for tag in (X_RESOLUTION, Y_RESOLUTION))
        sizes = np.abs([x, y, step]) * (unit or 1.0)
    except (ValueError, ZeroDivisionError):
        return VolumeInfo(notes=("the voxel sizes that ImageJ wrote are damaged",))
    if announced > num_pages:
        raise MediaError(
            f"{source.name}: ImageJ announces {announced:,} slices, the file has {num_pages:,} pages; save it as "
            "separate pages"
        )
    if not (np.isfinite(sizes).all() and sizes.min() > 0):
        return VolumeInfo(notes=("the voxel sizes that ImageJ wrote are damaged",))
    return VolumeInfo(affine=as_affine(np.diag([*sizes, 1.0])))


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
            f"the limit is max_pixels={source.limits.max_pixels:,}; raise it if you trust the file"
        )


def _num_frames(source: Source, image: ImageFile.ImageFile) -> int:
    with _quiet():
        num_frames = int(getattr(image, "n_frames", 1))  # Pillow's stills-only formats have no such attribute
        num_frames -= _num_hidden(image)
    if num_frames > source.limits.max_frames:
        raise InputError(f"{source.name}: {num_frames:,} frames; the limit is max_frames={source.limits.max_frames:,}")
    return num_frames


def _load(image: ImageFile.ImageFile, frame: int) -> None:
    with _quiet() if image.format == "TIFF" else nullcontext():  # the only decoder that warns while it decodes
        image.seek(frame)
        image.load()


def _duration(image: ImageFile.ImageFile) -> Fraction:
    # Pillow gives milliseconds, a float for a PNG, whose file holds a fraction of two 16-bit numbers.
    seconds = (Fraction(image.info.get("duration") or 0) / 1000).limit_denominator(_LARGEST_DENOMINATOR)
    return seconds if seconds > 0 else _NO_DURATION


def _num_hidden(image: ImageFile.ImageFile) -> int:
    """1 where a PNG begins with a page that its animation does not show."""
    return int(bool(image.info.get("default_image")) and image.format == "PNG")


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
