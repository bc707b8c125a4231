"""A small valid file of every format that is read, built the same way every time."""

from __future__ import annotations

import functools
import gzip
import io
import math
import struct
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from multitok.frontend.media.geometry import IDENTITY, VolumeInfo
from multitok.frontend.media.nifti import encode_nifti

SAMPLE_RATE_HZ = 16_000


def picture(height: int = 12, width: int = 17, seed: int = 0) -> NDArray[np.uint8]:
    """A ramp with noise, [H, W, 3]."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 180, height)[:, None, None] + np.linspace(0, 40, width)[None, :, None]
    return (ramp + rng.integers(0, 36, (height, width, 3))).astype(np.uint8)


def clip(num_frames: int = 4) -> NDArray[np.uint8]:
    """Pictures that differ, [T, H, W, 3]."""
    return np.stack([picture(seed=t) for t in range(num_frames)])


def volume() -> NDArray[np.float32]:
    """[4, 5, 6], values from 0 to 119 in file order."""
    return np.arange(120, dtype=np.float32).reshape(4, 5, 6)


def tone(num_frames: int = 3_000, channels: int = 2) -> NDArray[np.float32]:
    """[C, N], a tone with noise."""
    rng = np.random.default_rng(0)
    t = np.arange(num_frames) / SAMPLE_RATE_HZ
    return (0.4 * np.sin(2 * math.pi * 330 * t) + 0.05 * rng.standard_normal((channels, num_frames))).astype(np.float32)


def encoded_image(image: Image.Image, format_name: str, **options: Any) -> bytes:
    """The bytes that Pillow writes."""
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def encoded_sound(samples: NDArray[np.float32], format_name: str, subtype: str, rate: int = SAMPLE_RATE_HZ) -> bytes:
    """The bytes that libsndfile writes; `samples` [C, N]."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.T, rate, format=format_name, subtype=subtype)
    return buffer.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    """The bytes of a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=array.dtype.hasobject)
    return buffer.getvalue()


def npz(**arrays: NDArray[Any]) -> bytes:
    """The bytes of a compressed `.npz` file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def nifti(
    values: NDArray[Any],
    *,
    code: int = 16,
    order: str = "<",
    slope: float = 0.0,
    intercept: float = 0.0,
    dim: tuple[int, ...] | None = None,
    magic: bytes = b"n+1\0",
    offset: float = 352.0,
) -> bytes:
    """A NIfTI-1 file; `values` [Z, Y, X] of the dtype that `code` names."""
    z, y, x = values.shape
    header = bytearray(352)
    struct.pack_into(f"{order}i", header, 0, 348)
    struct.pack_into(f"{order}8h", header, 40, *(dim or (3, x, y, z, 1, 1, 1, 1)))
    struct.pack_into(f"{order}hh", header, 70, code, 8 * values.dtype.itemsize)
    struct.pack_into(f"{order}3f", header, 108, offset, slope, intercept)
    header[344:348] = magic
    return bytes(header) + values.astype(values.dtype.newbyteorder(order)).tobytes()


@functools.cache
def files() -> dict[str, bytes]:
    """File name -> bytes."""
    from tests.frontend.media.test_dicom import encoded, slice_of
    from tests.frontend.media.test_mesh import box, obj, ply

    image = Image.fromarray(picture())
    frames = [Image.fromarray(frame) for frame in clip()]
    several = {"save_all": True, "append_images": frames[1:]}
    pages = [Image.fromarray(page) for page in volume()]
    return {
        "still.png": encoded_image(image, "PNG"),
        "palette.png": encoded_image(image.quantize(16), "PNG"),
        "still.jpg": encoded_image(image, "JPEG", quality=90),
        "progressive.jpg": encoded_image(image, "JPEG", progressive=True),
        "still.webp": encoded_image(image, "WEBP"),
        "lossless.webp": encoded_image(image, "WEBP", lossless=True),
        "still.gif": encoded_image(image, "GIF"),
        "still.bmp": encoded_image(image, "BMP"),
        "still.tif": encoded_image(image, "TIFF"),
        "lzw.tif": encoded_image(image, "TIFF", compression="tiff_lzw"),
        "moving.apng": encoded_image(frames[0], "PNG", **several),
        "moving.webp": encoded_image(frames[0], "WEBP", lossless=True, **several),
        "moving.gif": encoded_image(frames[0], "GIF", **several),
        "stack.tif": encoded_image(pages[0], "TIFF", save_all=True, append_images=pages[1:]),
        "int16.wav": encoded_sound(tone(), "WAV", "PCM_16"),
        "float.wav": encoded_sound(tone(), "WAV", "FLOAT"),
        "wide.wav": encoded_sound(tone(), "RF64", "PCM_16"),
        "sound.flac": encoded_sound(tone(), "FLAC", "PCM_16"),
        "vorbis.ogg": encoded_sound(tone(), "OGG", "VORBIS"),
        "speech.opus": encoded_sound(tone(), "OGG", "OPUS"),
        "sound.mp3": encoded_sound(tone(), "MP3", "MPEG_LAYER_III"),
        "sound.aiff": encoded_sound(tone(), "AIFF", "PCM_16"),
        "brain.nii": nifti(volume()),
        "brain.nii.gz": gzip.compress(nifti(volume()), mtime=0),
        "brain-2.nii": encode_nifti(volume(), VolumeInfo(affine=IDENTITY, axes="RAS"), version=2),
        "slice.dcm": encoded(slice_of(0)),
        "box.obj": obj(*box()),
        "box.ply": ply(*box(), "binary_little_endian", mixed=True),
        "ascii.text.ply": ply(*box(), "ascii"),
        "volume.npy": npy(volume()),
        "volume.npz": npz(volume=volume()),
        "video.npy": npy(clip()),
        "image.npy": npy(picture()),
        "series.npy": npy(tone().T),
        "table.csv": b"time,a,b\n2020-01-01,1,2.5\n2020-01-02,,-3e-2\n",
        "table.tsv": b"1\t2\n3\t4\n",
        "genes.fa": b">one first gene\nACGT\nacgtN\n>two\nTTT\n",
        "protein.faa.gz": gzip.compress(b">p\nMKTAYIAK\n", mtime=0),
        "prose.txt": "naïve café, 東京 🗼\r\n".encode(),
    }
