"""Memory for a huge picture and a long video: `python benchmarks/vision_memory.py [--quick] [CHECKPOINT ...]`

Encodes and decodes a memory-mapped picture of 32,768 x 32,768 pixels and an hour of video (25 frames a second), and a
smaller one of each, every one in a process of its own, and prints the peak resident memory (VmHWM of /proc). That
includes Python, its libraries, all pages of the files that are mapped, and all codes of the picture; the video is a
stream, whose codes are counted and dropped, and two minutes of it are decoded. Without checkpoints autoencoders of the
usual size with random weights are taken: what they compute differs, what they hold does not. The temporary folder
needs 7 GB.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from numpy.typing import NDArray

import multitok

WANTED_MB = 1000


def peak_mb() -> float:
    """VmHWM of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def scene(height: int, width: int, time: int = 0) -> NDArray[np.uint8]:
    """Waves and noise, uint8 [height, width, 3]."""
    y, x = np.ogrid[:height, :width]
    wave = 60 * np.sin(y / 19 + time / 7) + 50 * np.sin(x / 31 + y / 53)
    noise = np.random.default_rng(time).normal(0, 12, (height, width, 3))
    return np.clip(128 + wave[..., None] + noise, 0, 255).astype(np.uint8)


def write_picture(path: Path, side: int) -> None:
    """A .npy file of [side, side, 3], row by row of tiles."""
    tile = scene(512, 512)
    row = np.tile(tile, (1, -(-side // 512), 1))[:, :side]
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (side, side, 3)})
        for start in range(0, side, 512):
            file.write(np.roll(row, start // 8, 1)[: side - start].tobytes())


def random_checkpoint(folder: Path, modality: str, quick: bool) -> Path:
    """An autoencoder of the usual size, or a tiny one, with random weights."""
    import torch

    from multitok.nets.autoencoder import VqAutoencoder
    from multitok.nets.autoencoder_config import AutoencoderConfig
    from multitok.nets.freeze import freeze
    from multitok.tokenizers.image_vq import ImageVq
    from multitok.tokenizers.video_vq import VideoVq

    shape: dict[str, Any] = {"patch": (1, 8, 8)} if modality == "image" else {"patch": (4, 8, 8), "taps": (-1, 0)}
    if quick:
        shape |= {"fine_width": 8, "coarse_width": 8, "context_width": 8, "codebook_sizes": (16, 16), "latent_dim": 8}
        shape |= {"encoder_blocks": (0, 1), "decoder_blocks": (0, 1), "tables": 2}
    torch.manual_seed(0)
    model = VqAutoencoder(AutoencoderConfig(**shape))
    with torch.no_grad():
        model.basis.copy_(torch.linalg.qr(torch.randn(model.basis.shape))[0])
        model.spread.fill_(100)
        for k in range(model.config.num_codebooks):
            model.codebook(k).normal_(0, 100 / 2**k)
            if k:
                model.prototypes(k).uniform_(0, 20)
    net = freeze(model)
    tokenizer = ImageVq(net) if modality == "image" else VideoVq(net)
    return multitok.save(tokenizer, folder / f"random-{modality}", card="# Random weights\n")


def frames(count: int, height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    """A video in chunks of 10 frames, two seconds over and over."""
    loop = np.stack([scene(height, width, time) for time in range(50)])
    for start in range(0, count, 10):
        chunk = loop[start % 50 : start % 50 + 10]
        yield chunk[: count - start]


def run_picture(tokenizer: Any, path: Path) -> dict[str, float]:
    """Encode and decode a mapped picture; seconds and peaks."""
    raw = np.load(path, mmap_mode="r")
    started = time.perf_counter()
    codes = tokenizer.encode(raw)
    encoded, encode_peak = time.perf_counter(), peak_mb()
    out = np.lib.format.open_memmap(path.with_suffix(".out.npy"), "w+", np.uint8, raw.shape)
    tokenizer.decode(codes, out=out)
    return {
        "megapixels": raw.shape[0] * raw.shape[1] / 1e6,
        "encode_s": encoded - started,
        "decode_s": time.perf_counter() - encoded,
        "encode_peak_mb": encode_peak,
        "decode_peak_mb": peak_mb(),
    }


def run_video(tokenizer: Any, count: int, height: int, width: int) -> dict[str, float]:
    """Stream a video to codes, and the codes of its first 3,000 frames to frames; seconds (for all) and peaks."""
    started = time.perf_counter()
    num_tokens = sum(codes.num_tokens for codes in tokenizer.encode_frames(frames(count, height, width)))
    assert num_tokens == tokenizer.num_tokens((count, height, width))
    encoded, encode_peak = time.perf_counter(), peak_mb()
    parts = list(tokenizer.encode_frames(frames(min(count, 3000), height, width)))
    prepared = time.perf_counter()
    decoded = sum(len(part) for part in tokenizer.decode_frames(parts))
    assert decoded == min(count, 3000)
    return {
        "megapixels": count * height * width / 1e6,
        "encode_s": encoded - started,
        "decode_s": (time.perf_counter() - prepared) * count / decoded,
        "encode_peak_mb": encode_peak,
        "decode_peak_mb": peak_mb(),
    }


def child(arguments: list[str]) -> None:
    """One measurement, printed as JSON."""
    checkpoint, *sizes = arguments
    tokenizer = multitok.load(checkpoint)
    start = peak_mb()
    if tokenizer.spec.modality == "image":
        found = run_picture(tokenizer, Path(sizes[0]))
    else:
        count, height, width = map(int, sizes)
        found = run_video(tokenizer, count, height, width)
    print(json.dumps({"start_peak_mb": start, **found}))


def measure(arguments: list[str]) -> dict[str, float]:
    """`child` in a process of its own."""
    run = subprocess.run([sys.executable, __file__, "--child", *arguments], capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(run.stdout)
    return result


def main() -> None:
    """Measure and print the table."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="*", help="image-vq and video-vq; none takes random ones")
    parser.add_argument("--quick", action="store_true", help="26 megapixels, two minutes, tiny nets")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON alone")
    options = parser.parse_args()
    sides, lengths = ([2048, 5120], [300, 3000]) if options.quick else ([8192, 32768], [3000, 90_000])
    height, width = (48, 64) if options.quick else (90, 160)
    folder = Path(tempfile.mkdtemp())
    rows: list[dict[str, Any]] = []
    try:
        chosen = options.checkpoints or [str(random_checkpoint(folder, m, options.quick)) for m in ("image", "video")]
        for checkpoint in chosen:
            is_image = multitok.load(checkpoint).spec.modality == "image"
            for size in sides if is_image else lengths:
                if is_image:
                    path = folder / "picture.npy"
                    write_picture(path, size)
                    row = {"input": f"picture {size} x {size}", **measure([checkpoint, str(path)])}
                else:
                    arguments = [checkpoint, str(size), str(height), str(width)]
                    row = {"input": f"video of {size / 25:.0f} s, {width} x {height}", **measure(arguments)}
                rows.append(row)
    finally:
        shutil.rmtree(folder)
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{describe()}; random weights: {not options.checkpoints}\n")
    print("| input | encode | peak | decode | peak | before |\n|---|---|---|---|---|---|")
    for row in rows:
        encode, decode = (row["megapixels"] / row[key] for key in ("encode_s", "decode_s"))
        peaks = [f"{row[key]:.0f} MB" for key in ("encode_peak_mb", "decode_peak_mb", "start_peak_mb")]
        print(
            f"| {row['input']} | {row['encode_s']:.0f} s, {encode:.1f} MPx/s | {peaks[0]} | "
            f"{row['decode_s']:.0f} s, {decode:.1f} MPx/s | {peaks[1]} | {peaks[2]} |"
        )
    worst = max(row["encode_peak_mb"] for row in rows)
    print(f"\nmost for encoding: {worst:.0f} MB, wanted at most {WANTED_MB} MB")


if __name__ == "__main__":
    main()
