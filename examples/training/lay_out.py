"""Lay out what the fetch scripts brought as folders of ordinary files to train on: `python lay_out.py KIND DATA OUT`.

    photos   fetch_images.sh    every photograph as it is; WebP pictures out of gcompris' resource files
    clips    fetch_videos.sh    whole clips, frame sequences and slow pans over photographs, lossless (FFV1)
    volumes  fetch_volumes.sh   the training head in six orientations, three with another gamma (.npy)
    meshes   fetch_meshes.sh    occupancy grids of 60 steps (.npy), one catalogue apart as held out

`multitok train` reads the folders. The seed of the pans is fixed, so the files are the same each time.
"""

from __future__ import annotations

import argparse
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import patch_data
from numpy.typing import NDArray
from PIL import Image

import multitok.frontend.media as media
from multitok.errors import MultitokError
from multitok.frontend.media.options import ReadOptions

PICTURES = (".jpg", ".jpeg", ".png")
SEQUENCES = ("mire-2", "mbt/cube", "cube", "ellipse-1", "mbt-depth/Castle-simu/Images")
CATALOGUES = ("BlendSwap-CC-0", "BlendSwap-CC-BY", "Reallusion", "Scopia")
HELD_OUT_CATALOGUE = "KatorLegaz"
MESH_STEPS, LARGEST_MESH_BYTES = 60, 6_000_000
PANS, PAN_FRAMES = 3000, 16


def main() -> None:
    """Lay out one kind of data."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=["photos", "clips", "volumes", "meshes"])
    parser.add_argument("data", type=Path, help="folder that the fetch script made")
    parser.add_argument("out", type=Path, help="folder to write")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    lay_out = {"photos": photos, "clips": clips, "volumes": volumes, "meshes": meshes}[arguments.kind]
    print(f"{lay_out(arguments.data, arguments.out):,} files in {arguments.out}")


def photos(data: Path, out: Path) -> int:
    """Photographs and wallpapers, of each wallpaper its largest file."""
    share = data / "train" / "usr" / "share"
    chosen = [path for path in sorted((share / "backgrounds").rglob("*")) if path.suffix in PICTURES]
    for folder in sorted((share / "wallpapers").iterdir()):
        files = [path for path in folder.rglob("*") if path.suffix in PICTURES and "images_dark" not in path.parts]
        chosen += sorted(files, key=lambda path: path.stat().st_size)[-1:]
    for index, path in enumerate(chosen):
        shutil.copyfile(path, out / f"{index:04}-{path.name}")
    count = len(chosen)
    for resource in sorted((share / "gcompris-qt" / "rcc").glob("*.rcc")):
        for picture in patch_data.webp_in(resource.read_bytes()):
            if patch_data.is_photo(picture):
                picture.save(out / f"{count:04}-gcompris.png")
                count += 1
    return count


def clips(data: Path, out: Path) -> int:
    """Clips, frame sequences, and pans over the photographs of `data`."""
    share = data / "train" / "usr" / "share"
    examples = share / "doc" / "opencv-doc" / "examples" / "data"
    names = ("vtest", "tree")
    for name in names:
        shutil.copyfile(examples / f"{name}.avi", out / f"{name}.avi")
    for index, name in enumerate(SEQUENCES):
        files = (share / "visp-images-data" / "ViSP-images" / name).iterdir()
        frames = [Image.open(path).convert("RGB") for path in sorted(files) if path.suffix in (".pgm", ".ppm", ".png")]
        _write_clip(out / f"sequence-{index}.mkv", np.stack([np.asarray(frame) for frame in frames[:300]]))
    pictures, rng = list(patch_data.photos(data)), np.random.default_rng(0)
    for index in range(PANS):
        picture = Image.fromarray(pictures[rng.integers(len(pictures))])
        _write_clip(out / f"pan-{index:04}.mkv", patch_data.pan(picture, rng, num_frames=PAN_FRAMES))
    return len(names) + len(SEQUENCES) + PANS


def volumes(data: Path, out: Path) -> int:
    """The training volumes of patch_data.py."""
    count = 0
    for volume in patch_data.volumes(data):
        np.save(out / f"head-{count:02}.npy", volume)
        count += 1
    return count


def meshes(data: Path, out: Path) -> int:
    """Meshes of furniture as occupancy: OUT/train, and OUT/heldout from a catalogue of its own."""
    share = data / "train" / "usr" / "share" / "sweethome3d" / "furniture"
    count = 0
    for name in (*CATALOGUES, HELD_OUT_CATALOGUE):
        folder = out / ("heldout" if name == HELD_OUT_CATALOGUE else "train")
        folder.mkdir(exist_ok=True)
        for grid in _occupancies(share / f"{name}.sh3f"):
            np.save(folder / f"{name}-{count:04}.npy", grid)
            count += 1
    return count


def _occupancies(catalogue: Path) -> Iterator[NDArray[np.float32]]:
    """Grids of the catalogue's meshes, each in the middle of a cube of 64."""
    with zipfile.ZipFile(catalogue) as archive:
        for name in sorted(archive.namelist()):
            if not name.lower().endswith(".obj") or archive.getinfo(name).file_size > LARGEST_MESH_BYTES:
                continue
            try:
                options = ReadOptions(mesh_resolution=MESH_STEPS)
                grid, _ = media.read_volume(archive.read(name), name, options=options)
            except MultitokError as error:
                print(f"left out {name}: {error}")
                continue
            around = [((64 - side) // 2, 64 - side - (64 - side) // 2) for side in grid.shape]
            if grid.mean() >= 0.005:
                yield np.pad(grid, around)


def _write_clip(path: Path, frames: NDArray[np.uint8]) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
