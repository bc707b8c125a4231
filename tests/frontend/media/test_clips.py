"""Clips: exact times, any frame rate, any stretch, colours, rotation, and what is done about damage."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from multitok.errors import InputError, MediaError
from multitok.frontend.media import Limits, ReadOptions, iter_frames, probe, read, read_clip, read_records
from multitok.protocol import Modality
from tests.frontend.media.clips_samples import LOSSLESS, number_of, numbered, written
from tests.frontend.media.samples import encoded_image, npy

KINDS: dict[str, Callable[[], bytes]] = {
    "b-frames.mp4": lambda: written(options={"g": "12", "bf": "3"}),
    "open-gop.mkv": lambda: written(
        container="matroska", options={"x264-params": "open-gop=1:keyint=10:bframes=3:scenecut=0"}
    ),
    "plain.avi": lambda: written(container="avi", codec="mpeg4"),
    "b-frames.avi": lambda: written(container="avi", options={"bf": "2"}),
    "vp9.webm": lambda: written(container="webm", codec="libvpx-vp9", options={"g": "10"}),
    "program.mpg": lambda: written(container="mpeg", codec="mpeg2video", options={"bf": "2", "g": "9"}),
    "transport.m2ts": lambda: written(container="mpegts", options={"bf": "2", "g": "9"}),
    "interlaced.mov": lambda: written(container="mov", options={"x264-params": "tff=1:interlaced=1"}),
}


def numbers(pixels: NDArray[np.uint8]) -> list[int]:
    return [number_of(frame) for frame in pixels]


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_comes_once_in_order_at_its_exact_time(name: str) -> None:
    data = KINDS[name]()
    clip = read_clip(data, name)
    assert numbers(clip.pixels) == list(range(40))
    assert clip.timestamps == tuple(Fraction(k, 25) for k in range(40))
    assert clip.frame_rate_hz == 25
    assert not clip.damage
    assert np.array_equal(read(data, name), clip.pixels)
    assert probe(data, name).extent == clip.pixels.shape[:3]


@pytest.mark.parametrize("name", KINDS)
def test_any_stretch_is_a_slice_of_the_whole(name: str) -> None:
    data = KINDS[name]()
    whole = read_clip(data, name)
    for first, last in [(0, 1), (1, 4), (9, 11), (11, 30), (13, 14), (29, 40), (39, 40)]:
        by_number = read_clip(data, name, frames=(first, last))
        by_time = read_clip(data, name, start_s=Fraction(first, 25), end_s=Fraction(last, 25))
        for part in (by_number, by_time):
            assert np.array_equal(part.pixels, whole.pixels[first:last]), (first, last)
            assert part.timestamps == whole.timestamps[first:last]
    assert np.array_equal(read_clip(data, name, frames=(35, None)).pixels, whole.pixels[35:])
    assert np.array_equal(read_clip(data, name, frames=(35, 99)).pixels, whole.pixels[35:])


@pytest.mark.parametrize("chunk", [1, 7, 40, 100])
@pytest.mark.parametrize("fps", [None, "8", "30000/1001"])
def test_chunks_are_the_whole(chunk: int, fps: str | None) -> None:
    data = KINDS["b-frames.mp4"]()
    whole = read_clip(data, "a.mp4", fps=fps, start_s="0.3")
    parts = list(iter_frames(data, "a.mp4", chunk=chunk, fps=fps, start_s="0.3"))
    assert [len(part.pixels) for part in parts[:-1]] == [chunk] * (len(parts) - 1)
    assert np.array_equal(np.concatenate([part.pixels for part in parts]), whole.pixels)
    assert sum((part.timestamps for part in parts), ()) == whole.timestamps


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("fps", ["10", "25", "60000/1001", "3"])
def test_a_new_rate_takes_the_nearest_frames(name: str, fps: str) -> None:
    data = KINDS[name]()
    clip = read_clip(data, name, fps=fps)
    rate = Fraction(fps)
    expected = []
    k = 0
    while k / rate < Fraction(40, 25):
        distances = [abs(Fraction(n, 25) - k / rate) for n in range(40)]
        expected.append(distances.index(min(distances)))
        k += 1
    assert numbers(clip.pixels) == expected
    options = ReadOptions(fps=rate)
    assert probe(data, name, options=options).extent == clip.pixels.shape[:3]
    (record,) = read_records(data, name, options=options)
    assert np.array_equal(record.raw, clip.pixels)  # type: ignore[arg-type]
    assert record.frame_rate_hz == rate


def test_a_variable_frame_rate_is_followed_by_its_timestamps() -> None:
    ticks = [0, 40, 80, 500, 520, 540, 1500, 1540, 2000, 2500]
    data = written(10, "matroska", ticks=ticks, options={"bf": "2"})
    clip = read_clip(data, "a.mkv")
    assert clip.timestamps == tuple(Fraction(tick, 1000) for tick in ticks)
    assert numbers(clip.pixels) == list(range(10))
    resampled = read_clip(data, "a.mkv", fps=4, end_s=2.5)
    assert numbers(resampled.pixels) == [min(range(10), key=lambda n: (abs(ticks[n] - 250 * k), n)) for k in range(10)]
    assert numbers(read_clip(data, "a.mkv", start_s=0.5, end_s=1.5).pixels) == [3, 4, 5]


def test_times_count_from_the_first_frame_and_stay_exact() -> None:
    data = written(30, "mov", rate=Fraction(30_000, 1001))
    assert read_clip(data, "a.mov").timestamps == tuple(k * Fraction(1001, 30_000) for k in range(30))


def test_a_stretch_without_frames_and_arguments_that_cannot_be() -> None:
    data = KINDS["b-frames.mp4"]()
    for arguments, message in (
        ({"start_s": 7}, "no frames in the stretch"),
        ({"start_s": -1}, "start_s=-1"),
        ({"start_s": 1, "end_s": 1}, "the end lies behind the start"),
        ({"end_s": "soon"}, "end_s='soon'"),
        ({"frames": (3, 3)}, r"frames=\(3, 3\)"),
        ({"frames": (40, 41)}, "the video has 40 frames"),
        ({"frames": (0, 3), "fps": 3}, "without fps"),
        ({"fps": 0}, "fps=0"),
    ):
        with pytest.raises(InputError, match=message):
            read_clip(data, "a.mp4", **arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="chunk=0"):
        next(iter_frames(data, "a.mp4", chunk=0))
    with pytest.raises(MediaError, match="an array has no times"):
        read_clip(npy(np.zeros((2, 4, 4, 3), np.uint8)), "a.npy")


# Colours: (matrix, its Kr and Kb)
MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}


def as_rgb(yuv: NDArray[np.float64], kr: float, kb: float, *, full: bool, depth: int) -> NDArray[np.float64]:
    """ITU-T H.273, in floats: [3, H, W] -> [H, W, 3] of 0 to 255."""
    top = 2.0 ** (depth - 8)
    y = yuv[0] / (255 * top + (top - 1)) if full else (yuv[0] / top - 16) / 219
    scale = (255 * top + (top - 1)) if full else 224 * top
    cb, cr = (yuv[1] - 128 * top) / scale, (yuv[2] - 128 * top) / scale
    r, b = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return np.clip(np.stack([r, g, b], axis=-1) * 255, 0, 255)


def yuv_frame(values: NDArray[Any], pix_fmt: str) -> Any:
    frame = av.VideoFrame(values.shape[2], values.shape[1], pix_fmt)
    for plane, rows in zip(frame.planes, values, strict=True):
        padded = np.zeros((rows.shape[0], plane.line_size // rows.itemsize), rows.dtype)
        padded[:, : rows.shape[1]] = rows
        plane.update(padded.tobytes())
    return frame


@pytest.mark.parametrize("matrix", [*MATRICES, None])
@pytest.mark.parametrize("full", [False, True, None])
@pytest.mark.parametrize(("pix_fmt", "depth"), [("yuv444p", 8), ("yuv444p10le", 10)])
def test_colours_follow_matrix_range_and_depth(matrix: int | None, full: bool | None, pix_fmt: str, depth: int) -> None:
    rng = np.random.default_rng(7)
    top = 1 << (depth - 8)
    values = rng.integers(30 * top, 200 * top, (3, 48, 64)).astype(np.uint8 if depth == 8 else np.uint16)
    data = written(
        container="matroska",
        codec="ffv1",
        pix_fmt=pix_fmt,
        matrix=matrix,
        colour_range=None if full is None else 1 + full,
        frames=[yuv_frame(values, pix_fmt)],
    )
    kr, kb = MATRICES[matrix or 5]
    expected = as_rgb(values.astype(np.float64), kr, kb, full=bool(full), depth=depth)
    assert np.abs(read(data, "a.mkv")[0] - expected).max() <= 1.0 + 0.51


def test_an_unnamed_matrix_is_that_of_high_definition_from_720_rows_on() -> None:
    values = np.random.default_rng(7).integers(30, 200, (3, 720, 16)).astype(np.uint8)
    frame = [yuv_frame(values, "yuv444p")]
    data = written(container="matroska", codec="ffv1", pix_fmt="yuv444p", frames=frame, size=(720, 16))
    expected = as_rgb(values.astype(np.float64), *MATRICES[1], full=False, depth=8)
    assert np.abs(read(data, "a.mkv")[0] - expected).max() <= 1.51


def test_rgb_video_keeps_its_pixels_and_transparency_is_over_white() -> None:
    rgb = numbered(5)
    data = written(container="matroska", codec="ffv1", pix_fmt="bgr0", frames=[av.VideoFrame.from_ndarray(rgb)])
    assert np.array_equal(read(data, "a.mkv")[0], rgb)
    alpha = np.linspace(0, 255, rgb.shape[0] * rgb.shape[1]).astype(np.uint8).reshape(rgb.shape[:2])
    rgba = np.dstack([rgb, alpha])
    data = written(
        container="mov", codec="qtrle", pix_fmt="argb", frames=[av.VideoFrame.from_ndarray(rgba, format="rgba")]
    )
    weight = alpha[:, :, None] / 255
    assert np.abs(read(data, "a.mov")[0] - (rgb * weight + 255 * (1 - weight))).max() <= 0.51


UPRIGHT: dict[tuple[int, int, int, int], Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    (1, 0, 0, 1): lambda a: a,
    (0, 1, -1, 0): lambda a: np.rot90(a, -1),
    (-1, 0, 0, -1): lambda a: np.rot90(a, 2),
    (0, -1, 1, 0): lambda a: np.rot90(a, 1),
    (-1, 0, 0, 1): lambda a: a[:, ::-1],
    (1, 0, 0, -1): lambda a: a[::-1],
    (0, 1, 1, 0): lambda a: a.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda a: np.rot90(a, 2).transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", UPRIGHT)
def test_the_display_matrix_is_applied(matrix: tuple[int, int, int, int]) -> None:
    data = bytearray(written(3, options={**LOSSLESS}))
    plain = read(bytes(data), "a.mp4")
    start = bytes(data).find(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    turned = read(bytes(data), "a.mp4")
    assert np.array_equal(turned, np.stack([UPRIGHT[matrix](frame) for frame in plain]))
    assert probe(bytes(data), "a.mp4").extent == turned.shape[:3]


def test_a_slanted_display_matrix_is_left() -> None:
    data = bytearray(written(3))
    plain = read(bytes(data), "a.mp4")
    start = bytes(data).find(b"tkhd") + 4 + 40
    data[start : start + 36] = struct.pack(">9i", 46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)
    assert np.array_equal(read(bytes(data), "a.mp4"), plain)


# Finely quantised, so that a packet is large and no decoder takes what is damaged for sound.
DAMAGEABLE: dict[str, Callable[[], bytes]] = {
    "b-frames.mp4": lambda: written(options={"g": "12", "bf": "3", "qp": "8"}),
    "open-gop.mkv": lambda: written(
        container="matroska", options={"qp": "8", "x264-params": "open-gop=1:keyint=10:bframes=3:scenecut=0"}
    ),
    "plain.avi": lambda: written(container="avi", codec="mpeg4", options={"qmin": "2", "qmax": "3", "g": "12"}),
}


def damaged(name: str, packets: list[int]) -> bytes:
    """A file with bytes in the middle of those packets turned over."""
    data = DAMAGEABLE[name]()
    with av.open(io.BytesIO(data)) as container:
        found = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    broken = bytearray(data)
    for packet in packets:
        position, size = found[packet]
        for at in range(position + size // 2, position + size - size // 8):
            broken[at] ^= 0xFF
    return bytes(broken)


@pytest.mark.parametrize("name", DAMAGEABLE)
def test_broken_packets_are_refused_or_left_out_and_told(name: str) -> None:
    data = damaged(name, [14])
    with pytest.raises(MediaError, match=rf"^{name}: .*damaged.*skip_damage=True"):
        read(data, name)
    clip = read_clip(data, name, skip_damage=True)
    intact = read_clip(DAMAGEABLE[name](), name)
    assert len(clip.damage) == 1
    assert "left out from" in clip.damage[0]
    kept = [round(float(time * 25)) for time in clip.timestamps]
    assert 10 <= len(kept) < 40
    for index, frame in zip(kept, clip.pixels, strict=True):
        assert np.array_equal(frame, intact.pixels[index]), index
    lost = sorted(set(range(40)) - set(kept))
    assert lost == list(range(lost[0], lost[-1] + 1))
    assert clip.damage[0].startswith(f"{len(lost)} frames left out")
    last = list(iter_frames(data, name, chunk=5, skip_damage=True))[-1]
    assert last.damage == clip.damage


def test_a_new_rate_bridges_what_was_left_out() -> None:
    data = damaged("b-frames.mp4", [14])
    clip = read_clip(data, "b-frames.mp4", fps=25, skip_damage=True)
    assert clip.timestamps[-1] >= Fraction(30, 25)
    assert clip.damage


def test_a_transport_stream_that_begins_in_the_middle() -> None:
    data = written(container="mpegts", options={"bf": "0", "g": "10", "x264-params": "scenecut=0"})
    with av.open(io.BytesIO(data)) as container:
        keys = [packet.pos for packet in container.demux(video=0) if packet.is_keyframe and packet.size]
    start = keys[1] + 188
    data = data[: 188 * 3] + data[start - start % 188 :]
    with pytest.raises(MediaError, match=r"damaged|lack the frame"):
        read(data, "a.m2ts")
    clip = read_clip(data, "a.m2ts", skip_damage=True)
    assert clip.damage
    assert numbers(clip.pixels)[-20:] == list(range(20, 40))


def test_a_video_without_frames() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mov") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        output.start_encoding()
    for function in (read, probe, read_clip):
        with pytest.raises(InputError):
            function(buffer.getvalue(), "a.mov")
    sound = io.BytesIO()
    with av.open(sound, "w", format="mov") as output:
        track = output.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        output.mux(track.encode(frame))
        output.mux(track.encode(None))
    with pytest.raises(MediaError, match="no video stream"):
        read(sound.getvalue(), "a.mov")


def animation(format_name: str, durations: list[int]) -> bytes:
    frames = [Image.fromarray(numbered(k)) for k in range(len(durations))]
    options = {"lossless": True} if format_name == "WEBP" else {}
    return encoded_image(
        frames[0], format_name, save_all=True, append_images=frames[1:], duration=durations, loop=0, **options
    )


@pytest.mark.parametrize(
    ("format_name", "name"), [("GIF", "a.gif"), ("PNG", "a.apng"), ("PNG", "a.png"), ("WEBP", "a.webp")]
)
def test_animations_are_clips_of_their_durations(format_name: str, name: str) -> None:
    durations = [40, 100, 500, 20, 340]
    data = animation(format_name, durations)
    clip = read_clip(data, name)
    assert [int(1000 * each) for each in clip.durations] == durations
    assert clip.timestamps == tuple(Fraction(sum(durations[:k]), 1000) for k in range(5))
    assert numbers(clip.pixels) == list(range(5))
    resampled = read_clip(data, name, fps=10)
    times = [0, 40, 140, 640, 660]
    assert numbers(resampled.pixels) == [min(range(5), key=lambda n: (abs(times[n] - 100 * k), n)) for k in range(10)]
    options = ReadOptions(fps=Fraction(10))
    assert probe(data, name, options=options).extent == (10, 48, 64)
    assert read(data, name, options=options).shape == (10, 48, 64, 3)
    assert numbers(read_clip(data, name, frames=(1, 3)).pixels) == [1, 2]
    assert numbers(read_clip(data, name, start_s=0.14, end_s=0.66).pixels) == [2, 3]


def test_a_thirtieth_of_a_second_in_a_png_is_exact_and_no_duration_is_a_tenth() -> None:
    frames = [Image.fromarray(numbered(k)) for k in range(3)]
    data = bytearray(encoded_image(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=33))
    import zlib

    position = data.find(b"fcTL")
    while position >= 0:
        data[position + 24 : position + 28] = struct.pack(">HH", 1, 30)
        data[position + 30 : position + 34] = struct.pack(">I", zlib.crc32(data[position : position + 30]))
        position = data.find(b"fcTL", position + 4)
    assert read_clip(bytes(data), "a.png").durations == (Fraction(1, 30),) * 3
    assert read_clip(animation("GIF", [0, 0]), "a.gif").durations == (Fraction(1, 10),) * 2


def test_an_animation_as_a_still_is_refused_unless_a_frame_is_named() -> None:
    data = animation("GIF", [40, 40, 40])
    with pytest.raises(MediaError, match=r"holds 3 frames or pages, not one image; give modality='video', or frame=0"):
        read(data, "a.gif", modality=Modality.IMAGE)
    for frame in range(3):
        options = ReadOptions(frame=frame)
        picture = read(data, "a.gif", modality=Modality.IMAGE, options=options)
        assert number_of(picture) == frame  # type: ignore[arg-type]
        assert probe(data, "a.gif", modality=Modality.IMAGE, options=options).extent == (48, 64)
    with pytest.raises(InputError, match=r"frame=3, but it has 3 \(0 to 2\)"):
        read(data, "a.gif", modality=Modality.IMAGE, options=ReadOptions(frame=3))


def test_a_page_for_viewers_without_animations_is_no_frame() -> None:
    frames = [Image.fromarray(numbered(k)) for k in range(3)]
    data = encoded_image(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True, duration=50)
    assert numbers(read(data, "a.png")) == [1, 2]
    assert probe(data, "a.png").extent == (2, 48, 64)


def test_one_chunk_is_in_memory_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    path.write_bytes(written(400, options={"preset": "ultrafast"}))
    whole = 400 * 48 * 64 * 3
    next(iter_frames(path, chunk=4))  # imports
    tracemalloc.start()
    count = sum(len(part.pixels) for part in iter_frames(path, chunk=4))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 400
    assert peak < whole / 10
    with pytest.raises(InputError, match=r"max_frames=10: raise it, give a lower fps, or stream with iter_frames"):
        read(path, limits=Limits(max_frames=10))
    assert sum(len(part.pixels) for part in iter_frames(path, limits=Limits(max_frames=10))) == 400
