"""A clip as a stream of codes: `python examples/video.py [CLIP] [--tokenizer NAME] [--out FILE]`.

Reads a few frames at a time, encodes and decodes them as they come, in memory that does not grow with the clip, and
writes original, decoded and error side by side: an .mp4 (needs multitok[video]), or an animated .webp or .png.
"""

import argparse
from collections.abc import Iterator
from fractions import Fraction
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np

import multitok
from multitok.frontend import media
from multitok.metrics import psnr

ERROR_GAIN = 8  # an error of 32 of 255 is white
CHUNK = 8  # frames that come at a time; any number gives the same codes


def main() -> None:
    """Encode and decode as a stream, draw."""
    parser = argparse.ArgumentParser(description="Stream a clip through a tokenizer.")
    parser.add_argument("clip", type=Path, nargs="?", default=Path(__file__).parent / "data/video/rabbit.webp")
    parser.add_argument("--tokenizer", default="video-4x8x8", help="a shipped checkpoint or a folder")
    extension = "mp4" if find_spec("av") else "webp"
    parser.add_argument("--out", type=Path, default=Path(f"video-stream.{extension}"))
    arguments = parser.parse_args()

    clips = media.iter_frames(arguments.clip, chunk=CHUNK)
    first = next(clips)
    pictures = side_by_side(multitok.load(arguments.tokenizer), chain([first], clips))
    if arguments.out.suffix == ".mp4":
        write_mp4(arguments.out, pictures, first.frame_rate_hz)
    else:
        modality, rate = multitok.Modality.VIDEO, float(first.frame_rate_hz)
        media.write(arguments.out, modality, np.stack(list(pictures)), frame_rate_hz=rate)
    print("wrote", arguments.out)


def side_by_side(tokenizer: multitok.Tokenizer, clips: Iterator[media.Clip]) -> Iterator[np.ndarray]:
    """Original, decoded, error, frame by frame, as soon as each is known."""
    sender, receiver = tokenizer.stream(), tokenizer.decode_stream()
    waiting = num_frames = num_tokens = 0
    for clip in chain(clips, [None]):
        codes = sender.push(clip.pixels) if clip else sender.flush()  # the steps that are complete by now
        decoded = receiver.push(codes)  # uint8 [T, H, W, 3], all frames of these steps
        if clip:
            waiting = np.concatenate([waiting, clip.pixels]) if num_frames else clip.pixels
        originals, waiting = waiting[: len(decoded)], waiting[len(decoded) :]
        if len(decoded):
            last, quality = num_frames + len(decoded) - 1, psnr(originals, decoded)
            print(f"frames {num_frames:4} to {last:4} -> codes {codes.values.shape}  {quality:.2f} dB")
        num_frames, num_tokens = num_frames + len(decoded), num_tokens + codes.num_tokens
        for pair in zip(originals, decoded, strict=True):
            error = np.clip(ERROR_GAIN * np.abs(np.subtract(*pair, dtype=np.int16)), 0, 255).astype(np.uint8)
            factor = max(1, 320 // error.shape[1])  # small clips are enlarged
            yield np.concatenate([*pair, error], 1).repeat(factor, 0).repeat(factor, 1)
    print(f"{num_frames:,} frames, {num_tokens:,} tokens")


def write_mp4(path: Path, pictures: Iterator[np.ndarray], frame_rate_hz: Fraction) -> None:
    """Write pictures as H.264, one at a time."""
    import av

    first = next(pictures)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", frame_rate_hz, {"crf": "14"})
        stream.height, stream.width = (side // 2 * 2 for side in first.shape[:2])  # H.264 wants even sides
        for picture in chain([first], pictures):
            even = np.ascontiguousarray(picture[: stream.height, : stream.width])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(even)))
        file.mux(stream.encode())


if __name__ == "__main__":
    main()
