"""Video files, with PyAV and without."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest

from multitok.errors import InputError, MediaError, MissingExtraError
from multitok.frontend.media import Limits, modality_of, probe, read
from multitok.protocol import Modality

CONTAINERS = [("mp4", "mp4", "mpeg4"), ("mov", "mov", "mpeg4"), ("mkv", "matroska", "mpeg4"), ("avi", "avi", "mpeg4")]


def clip(num_frames: int = 12) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A bright square that moves, [T, 48, 64, 3]."""
    frames = np.full((num_frames, 48, 64, 3), 60, np.uint8)
    for t in range(num_frames):
        frames[t, 16:32, 3 * t : 3 * t + 16] = (220, 120, 40)
    return frames


def encoded(container: str, codec: str) -> bytes:
    """`clip()` as a video file."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 2_000_000
        for frame in clip():
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def test_without_pyav_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    data = b"\0\0\0\x10ftypisom\0\0\0\0"
    for function in (read, probe):
        with pytest.raises(
            MissingExtraError, match=r"^a\.mp4: video files need PyAV: pip install 'multitok\[video\]'$"
        ):
            function(data, "a.mp4")
    assert modality_of("a.mp4") is Modality.VIDEO


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "a.mp4",
            b"\0\0\0\x10ftypisom\0\0\0\0\0\0\1\0moov",
            r"box b'moov' at byte 16 announces 256 bytes, 8 are there",
        ),
        ("a.mov", b"\0\0\0\x04ftypisom", "box b'ftyp' at byte 0 announces 4 bytes"),
        ("a.avi", b"RIFF\x64\0\0\0AVI LIST", "AVI video is cut short: 108 bytes announced, 16 found"),
        (
            "a.mkv",
            b"\x1a\x45\xdf\xa3\x84\0\0\0\0\x18\x53\x80\x67\x90\0",
            "Matroska video is cut short: 30 bytes announced",
        ),
        ("a.webm", b"\x1a\x45\xdf\xa3", "Matroska video is cut short or damaged at byte 4"),
        ("a.webm", b"\x1a\x45\xdf\xa3\0\0\0", "Matroska video is cut short or damaged at byte 4"),
    ],
)
def test_containers_that_are_cut_short(name: str, data: bytes, message: str) -> None:
    with pytest.raises(MediaError, match=message):
        read(data, name)


@pytest.mark.parametrize(("extension", "container", "codec"), CONTAINERS)
def test_frames_of_a_file(extension: str, container: str, codec: str) -> None:
    data, name = encoded(container, codec), f"a.{extension}"
    video = read(data, name)
    assert video.shape == clip().shape
    assert video.dtype == np.uint8
    assert np.abs(video.astype(int) - clip()).mean() < 12
    assert probe(data, name).extent == (12, 48, 64)
    assert np.array_equal(read(data, name), video)


@pytest.mark.parametrize(("extension", "container", "codec"), CONTAINERS)
def test_a_file_cut_anywhere_is_refused(extension: str, container: str, codec: str) -> None:
    data = encoded(container, codec)
    for num_bytes in [*range(1, 60, 4), *np.linspace(60, len(data) - 1, 25).astype(int).tolist()]:
        with pytest.raises(InputError):
            read(data[:num_bytes], f"a.{extension}")


def test_limits() -> None:
    data = encoded("mp4", "mpeg4")
    with pytest.raises(InputError, match="frames of 64 x 48 are 3,072 pixels; the limit is max_pixels=3,000"):
        read(data, "a.mp4", limits=Limits(max_pixels=3_000))
    with pytest.raises(InputError, match="the limit is max_frames=11"):
        read(data, "a.mp4", limits=Limits(max_frames=11))
