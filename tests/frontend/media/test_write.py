"""What is written is read back: exactly, where the table of formats says so."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from multitok.errors import InputError
from multitok.frontend.media import modality_of, read, records, write
from multitok.protocol import Modality, Waveform
from tests.frontend.media.samples import clip, picture, tone, volume

SERIES = np.array([[1.1, np.nan], [-3e-30, 1e30], [0.1, 16_777_217]], np.float32)
RAW: dict[Modality, Any] = {
    Modality.TEXT: "naïve\r\n東京\x00",
    Modality.IMAGE: picture(),
    Modality.VIDEO: clip(),
    Modality.VOLUME: volume(),
    Modality.AUDIO: Waveform(np.round(tone() * 32_768) / 32_768, 16_000),
    Modality.SERIES: SERIES,
    Modality.SEQUENCE: "ACGTNacgtn" * 13,
}
EXACT = [
    (Modality.TEXT, "txt"),
    (Modality.TEXT, "md"),
    (Modality.IMAGE, "png"),
    (Modality.IMAGE, "webp"),
    (Modality.IMAGE, "npy"),
    (Modality.VIDEO, "webp"),
    (Modality.VIDEO, "png"),
    (Modality.VIDEO, "apng"),
    (Modality.VIDEO, "npy"),
    (Modality.VOLUME, "npy"),
    (Modality.AUDIO, "wav"),
    (Modality.AUDIO, "flac"),
    (Modality.SERIES, "csv"),
    (Modality.SERIES, "tsv"),
    (Modality.SERIES, "npy"),
    (Modality.SEQUENCE, "fasta"),
    (Modality.SEQUENCE, "faa"),
    (Modality.SEQUENCE, "txt"),
]


def same(left: Any, right: Any) -> bool:
    if isinstance(left, Waveform):
        return left.sample_rate_hz == right.sample_rate_hz and np.array_equal(left.samples, right.samples)
    if isinstance(left, str):
        return bool(left == right)
    return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=left.dtype == np.float32)


@pytest.mark.parametrize(("modality", "extension"), EXACT)
def test_what_is_written_is_read_back(modality: Modality, extension: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"item.{extension}", modality, RAW[modality])
    assert same(read(path, modality=modality), RAW[modality])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("modality", list(Modality))
def test_the_default_extension_is_read_back_as_the_same_modality(modality: Modality, tmp_path: Path) -> None:
    path = write(tmp_path / "item", modality, RAW[modality])
    assert modality_of(path.name, path) is modality
    assert same(read(path), RAW[modality])


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for modality, extension in EXACT:
        first = write(tmp_path / f"a.{extension}", modality, RAW[modality]).read_bytes()
        assert write(tmp_path / f"b.{extension}", modality, RAW[modality]).read_bytes() == first


def test_loud_sound_is_clipped_and_does_not_wrap(tmp_path: Path) -> None:
    loud = Waveform(np.array([[-3.0, -1.0, 0.0, 1.0, 1.0001, 2.5]], np.float32), 8_000)
    top = 32_767 / 32_768
    for extension in ("wav", "flac"):
        path = write(tmp_path / f"loud.{extension}", Modality.AUDIO, loud)
        assert read(path).samples.tolist() == [[-1.0, -1.0, 0.0, top, top, top]]
        assert soundfile.info(path).subtype == "PCM_16"


def test_float_sound_is_exact(tmp_path: Path) -> None:
    loud = Waveform(tone() * 3, 44_100)
    assert same(read(write(tmp_path / "x.wav", Modality.AUDIO, loud, float_audio=True)), loud)


def test_a_fasta_record_has_its_name_and_lines_of_60(tmp_path: Path) -> None:
    path = write(tmp_path / "x.fa", Modality.SEQUENCE, "A" * 61, record_id="gene 1")
    assert path.read_bytes() == b">gene 1\n" + b"A" * 60 + b"\nA\n"
    assert list(records(path)) == [("gene", "A" * 61)]


def test_an_animation_has_the_frame_rate(tmp_path: Path) -> None:
    path = write(tmp_path / "x.webp", Modality.VIDEO, clip(), frame_rate_hz=25.0)
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        image.load()
        assert image.info["duration"] == 40


def test_the_array_of_a_video_keeps_equal_frames(tmp_path: Path) -> None:
    still = np.repeat(clip()[:1], 5, axis=0)
    assert same(read(write(tmp_path / "x.npy", Modality.VIDEO, still)), still)


@pytest.mark.parametrize(
    ("modality", "name", "raw", "message"),
    [
        (Modality.IMAGE, "x.gif", picture(), r"x\.gif: image is written to \.png, \.webp, \.npy"),
        (Modality.AUDIO, "x.mp3", RAW[Modality.AUDIO], r"audio is written to \.wav, \.flac"),
        (Modality.VOLUME, "x.npy.gz", volume(), r"volume is written to \.npy"),
        (
            Modality.IMAGE,
            "x.png",
            picture().astype(np.float32),
            r"image is uint8 \[H, W, 3\].*not float32 \[12, 17, 3\]",
        ),
        (Modality.IMAGE, "x.png", clip(), r"not uint8 \[4, 12, 17, 3\]"),
        (Modality.IMAGE, "x.png", picture()[:, :, :2], r"not uint8 \[12, 17, 2\]"),
        (Modality.VIDEO, "x.webp", clip()[:0], r"not uint8 \[0, 12, 17, 3\]"),
        (Modality.AUDIO, "x.wav", tone(), "audio is Waveform with something in it, not float32"),
        (Modality.AUDIO, "x.wav", Waveform(tone(0), 16_000), "the waveform has no samples"),
        (Modality.TEXT, "x.txt", b"bytes", "text is str .*not bytes"),
        (Modality.TEXT, "x.txt", "\ud800", "cannot be written as UTF-8"),
        (Modality.SEQUENCE, "x.fa", "ACÅ", "cannot be written as ASCII"),
    ],
)
def test_what_cannot_be_written_leaves_no_file(
    modality: Modality, name: str, raw: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        write(tmp_path / name, modality, raw)
    assert list(tmp_path.iterdir()) == []
