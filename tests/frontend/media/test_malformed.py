"""Everything that can be wrong with a file, and the exact error that says so."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multitok.errors import InputError, MediaError
from multitok.frontend.media import Limits, probe, read, records
from multitok.protocol import Modality
from tests.frontend.media import samples
from tests.frontend.media.samples import encoded_sound, files, nifti, npy, npz, tone, volume


def png_header(width: int, height: int) -> bytes:
    """A whole PNG that claims a size, with the pixels of another."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 16))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def flipped(name: str, position: int) -> bytes:
    """A valid file with the lowest bit of one byte flipped."""
    data = bytearray(files()[name])
    data[position] ^= 1
    return bytes(data)


def cut(name: str, num_bytes: int) -> bytes:
    """A valid file without its last bytes."""
    return files()[name][:-num_bytes]


def patched(name: str, position: int, value: bytes) -> bytes:
    """A valid file with some bytes replaced."""
    data = bytearray(files()[name])
    data[position : position + len(value)] = value
    return bytes(data)


def wav(samples_: np.ndarray[Any, Any]) -> bytes:
    """A WAV of 32-bit floats."""
    return encoded_sound(samples_.astype(np.float32), "WAV", "FLOAT")


def one_bad_sample(value: float) -> np.ndarray[Any, Any]:
    sound = tone()
    sound[1, 1_234] = value
    return sound


def one_bad_voxel(value: float) -> np.ndarray[Any, Any]:
    voxels = volume()
    voxels[1, 2, 3] = value
    return voxels


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def header_claims(shape: str) -> bytes:
    """An .npy whose header claims a shape, followed by four bytes."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n" + b"\0\0\0\0"


MALFORMED: list[tuple[str, str, Callable[[], bytes], type[Exception], str]] = [
    # empty, and not what the name says
    ("empty", "a.txt", lambda: b"", InputError, r"^a\.txt: the file is empty \(0 bytes\)$"),
    ("empty-image", "a.png", lambda: b"", InputError, "empty"),
    ("empty-gzip", "a.fa.gz", lambda: gzip.compress(b""), InputError, "empty"),
    (
        "sound-as-image",
        "photo.jpg",
        lambda: files()["int16.wav"],
        MediaError,
        r"^photo\.jpg: holds RIFF/WAVE audio, but its name says image; give modality='audio' or the right file$",
    ),
    ("image-as-sound", "a.wav", lambda: files()["still.png"], MediaError, "holds a PNG image, but its name says audio"),
    ("image-as-text", "a.txt", lambda: files()["still.png"], MediaError, "holds a PNG image, but its name says text"),
    ("animation-as-jpg", "a.jpg", lambda: files()["moving.gif"], MediaError, "holds 4 frames or pages, not one image"),
    ("pages", "a.tif", lambda: files()["stack.tif"], MediaError, "holds 4 frames or pages.*modality='volume'"),
    (
        "text-as-image",
        "a.png",
        lambda: b"hello there",
        MediaError,
        r"^a\.png: its name says image, but its first bytes b'hello th' are of no image format that is read here "
        r"\(PNG image, JPEG image, ",
    ),
    ("text-as-array", "a.npy", lambda: b"hello", MediaError, "are of no volume format"),
    ("pdf", "a.jpg", lambda: b"%PDF-1.7\n\0", MediaError, "holds a PDF document, which is not read here"),
    ("gzip-unnamed", "a.nii", lambda: files()["brain.nii.gz"], MediaError, r"holds gzip data \(name it \.gz\)"),
    ("unknown", "notes", lambda: b"hello", MediaError, "neither its extension nor its first bytes.*give modality="),
    # text
    (
        "utf8",
        "a.txt",
        lambda: b"abc\xff def",
        MediaError,
        r"^a\.txt: not UTF-8: byte 0xff at offset 3 \(invalid start byte\); convert the file to UTF-8$",
    ),
    ("utf8-cut", "a.txt", lambda: "né".encode()[:-1], MediaError, "byte 0xc3 at offset 1 .unexpected end of data"),
    ("utf16", "a.txt", lambda: "hello".encode("utf-16"), MediaError, "it looks like UTF-16"),
    ("latin1-table", "a.csv", lambda: "a,b\n1,°".encode("latin-1"), MediaError, "byte 0xb0 at offset 6"),
    # images
    ("png-cut", "a.png", lambda: cut("still.png", 20), MediaError, "PNG image is cut short: chunk b'IDAT'"),
    ("png-cut-end", "a.png", lambda: cut("still.png", 12), MediaError, "cut short: .* no IEND came"),
    ("png-flipped", "a.png", lambda: flipped("still.png", 100), MediaError, "the checksum of chunk b'IDAT' .* differs"),
    ("apng-cut", "a.apng", lambda: cut("moving.apng", 400), MediaError, "PNG image is cut short"),
    ("jpeg-cut", "a.jpg", lambda: cut("still.jpg", 60), MediaError, "cannot be decoded as JPEG image: .*truncated"),
    ("jpeg-cut-head", "a.jpg", lambda: files()["still.jpg"][:30], MediaError, "JPEG image"),
    ("progressive-cut", "a.jpg", lambda: cut("progressive.jpg", 9), MediaError, "cannot be decoded as JPEG image"),
    ("webp-cut", "a.webp", lambda: cut("still.webp", 7), MediaError, "WebP|WEBP"),
    ("gif-cut", "a.gif", lambda: cut("moving.gif", 300), MediaError, "GIF image is cut short"),
    ("bmp-cut", "a.bmp", lambda: cut("still.bmp", 10), MediaError, "678 bytes announced, 668 found"),
    ("tiff-cut", "a.tif", lambda: cut("still.tif", 10), MediaError, "cannot be decoded as TIFF image"),
    (
        "png-bomb",
        "bomb.png",
        lambda: png_header(60_000, 60_000),
        InputError,
        r"^bomb\.png: 60,000 x 60,000 is 3,600,000,000 pixels; the limit is max_pixels=178,956,970; "
        r"raise it if you trust the file$",
    ),
    ("png-nothing", "a.png", lambda: png_header(0, 5), MediaError, "0 x 5|PNG image"),
    (
        "tiff-float",
        "a.tif",
        lambda: samples.encoded_image(Image.fromarray(volume()[0]), "TIFF"),
        MediaError,
        "pixels are 32-bit floats.*modality='volume'",
    ),
    # sound
    (
        "wav-cut",
        "a.wav",
        lambda: cut("int16.wav", 1_000),
        MediaError,
        r"^a\.wav: WAV audio is cut short: 12,000 bytes of samples announced, 11,000 found$",
    ),
    ("wav-cut-head", "a.wav", lambda: files()["int16.wav"][:30], MediaError, "no data chunk in its 30 bytes"),
    ("rf64-cut", "a.wav", lambda: cut("wide.wav", 8), MediaError, "12,000 bytes of samples announced, 11,992 found"),
    ("flac-cut", "a.flac", lambda: cut("sound.flac", 1_500), MediaError, "FLAC audio"),
    ("flac-cut-head", "a.flac", lambda: files()["sound.flac"][:20], MediaError, "FLAC audio"),
    ("ogg-cut", "a.ogg", lambda: cut("vorbis.ogg", 10), MediaError, "Ogg audio is cut short inside the page"),
    ("opus-cut", "a.opus", lambda: cut("speech.opus", 10), MediaError, "Ogg audio is cut short inside the page"),
    ("mp3-cut", "a.mp3", lambda: cut("sound.mp3", 700), MediaError, "MP3 audio"),
    ("aiff-cut", "a.aiff", lambda: cut("sound.aiff", 10), MediaError, "AIFF audio is cut short: chunk b'SSND'"),
    ("wav-rate-0", "a.wav", lambda: patched("int16.wav", 24, bytes(4)), InputError, "a sample rate of 0 Hz"),
    ("wav-nothing", "a.wav", lambda: wav(np.zeros((1, 0))), InputError, r"^a\.wav: the sound has no samples$"),
    (
        "wav-nan",
        "a.wav",
        lambda: wav(one_bad_sample(np.nan)),
        InputError,
        r"^a\.wav: sample 1,234 is nan: cut the sound there, or mend the file$",
    ),
    ("wav-inf", "a.wav", lambda: wav(one_bad_sample(-np.inf)), InputError, "sample 1,234 is -inf"),
    # volumes
    (
        "nifti-cut",
        "a.nii",
        lambda: cut("brain.nii", 3),
        MediaError,
        r"^a\.nii: NIfTI volume is cut short: 832 bytes announced, 829 found$",
    ),
    ("nifti-gz-cut", "a.nii.gz", lambda: cut("brain.nii.gz", 9), MediaError, "gzip data is cut short"),
    ("not-gz", "a.nii.gz", lambda: files()["brain.nii"], MediaError, "cannot be decoded as gzip data"),
    ("nifti-2", "a.nii", lambda: struct.pack("<i", 540) + bytes(600), MediaError, "are of no volume format"),
    ("nifti-pair", "a.nii", lambda: nifti(volume(), magic=b"ni1\0"), MediaError, "two-file NIfTI volume"),
    ("nifti-4d", "a.nii", lambda: nifti(volume(), dim=(4, 6, 5, 2, 2, 1, 1, 1)), MediaError, "holds 2 volumes"),
    ("nifti-2d", "a.nii", lambda: nifti(volume(), dim=(2, 6, 5, 1, 1, 1, 1, 1)), MediaError, "has 3 axes"),
    ("nifti-negative", "a.nii", lambda: nifti(volume(), dim=(3, 6, -5, 4, 1, 1, 1, 1)), MediaError, "has 3 axes"),
    ("nifti-complex", "a.nii", lambda: nifti(volume(), code=32), MediaError, "voxels of type complex64"),
    ("nifti-type", "a.nii", lambda: nifti(volume(), code=7), MediaError, "voxels of type 7"),
    ("nifti-offset", "a.nii", lambda: nifti(volume(), offset=12.0), MediaError, "begin at byte 12.0"),
    ("nifti-nan", "a.nii", lambda: nifti(one_bad_voxel(np.nan)), InputError, r"voxel \[1, 2, 3\] is nan"),
    ("nifti-huge", "a.nii", lambda: nifti(volume(), dim=(3, *[32_767] * 3, 1, 1, 1, 1)), InputError, "max_bytes="),
    # arrays
    ("npy-cut", "a.npy", lambda: cut("volume.npy", 4), MediaError, "480 bytes announced, 476 found"),
    ("npy-objects", "a.npy", lambda: npy(np.array([{}], dtype=object)), MediaError, "Python objects .*never loaded"),
    ("npy-complex", "a.npy", lambda: npy(np.zeros(3, complex)), MediaError, "readable are real numbers"),
    ("npy-rank", "a.npy", lambda: npy(np.zeros((1, 2, 3, 4))), MediaError, r"shape \[1, 2, 3, 4\] and dtype float64"),
    ("npy-scalar", "a.npy", lambda: npy(np.array(3.0)), MediaError, r"shape \[\]"),
    ("npy-empty", "a.npy", lambda: npy(np.zeros((0, 3))), InputError, r"shape \[0, 3\] is empty"),
    ("npy-huge", "a.npy", lambda: header_claims("(99999999, 99999999)"), InputError, "max_bytes="),
    ("npy-negative", "a.npy", lambda: header_claims("(-1, 4)"), MediaError, "NumPy array|shape"),
    ("npy-code", "a.npy", lambda: header_claims("__import__('os')"), MediaError, "cannot be decoded as NumPy array"),
    (
        "npy-inf",
        "a.npy",
        lambda: npy(np.array([1e300])),
        InputError,
        "row 0, channel 0 is 1e.300, not a finite float32",
    ),
    ("npz-two", "a.npz", lambda: npz(a=volume(), b=volume()), MediaError, "2 members .a.npy, b.npy."),
    ("npz-none", "a.npz", lambda: zipped(**{"word/document.xml": b"<a/>"}), MediaError, "exactly one array"),
    ("npz-cut", "a.npz", lambda: cut("volume.npz", 30), MediaError, "NumPy array"),
    # tables
    ("csv-ragged", "a.csv", lambda: b"a,b\n1,2\n3\n", MediaError, "line 3 has 1 cells, the first row 2"),
    ("csv-word", "a.csv", lambda: b"t,v\n1,2\n2,oops\n", MediaError, "line 3, column 2: 'oops' is not a number"),
    ("csv-half-words", "a.csv", lambda: b"1,2\nx,3\n4,5\n", MediaError, "line 2, column 1: 'x' is not a number"),
    ("csv-header-only", "a.csv", lambda: b"a,b\n", InputError, "no rows of numbers"),
    ("csv-blank", "a.csv", lambda: b"\n\n", InputError, "no rows of numbers"),
    ("csv-prose", "a.csv", lambda: b"Hello.\nThis is prose.\n", MediaError, "it holds no numbers"),
    ("csv-inf", "a.csv", lambda: b"a\n1\ninf\n", InputError, "row 1, channel 0 is inf"),
    ("csv-nul", "a.csv", lambda: b"a,b\n1,\x002\n", MediaError, "line 2"),
    # sequences
    ("fasta-record", "a.fa", lambda: b">one\nACGT\n>two\n>three\nA\n", InputError, "record 'two' has no letters"),
    ("fasta-title", "a.fa", lambda: b">one", InputError, "record 'one' has no letters"),
    ("fasta-blank", "a.fa", lambda: b" \n\n", InputError, "the file has no letters"),
    ("fasta-unicode", "a.fa", lambda: ">a\nACÅT".encode(), MediaError, "'Å' at character 5: .* ASCII"),
    ("fasta-zero", "a.fa", lambda: b">a\nAC\0T", MediaError, "a zero byte at offset 5"),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "build", "error", "message"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED]
)
def test_malformed(name: str, build: Callable[[], bytes], error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message) as from_bytes:
        list(records(build(), name))
    if error is InputError:
        assert not isinstance(from_bytes.value, MediaError)
    assert str(from_bytes.value).startswith(f"{name}: ")
    path = tmp_path / name
    path.write_bytes(build())
    with pytest.raises(error) as from_path:
        list(records(path))
    assert str(from_path.value) == str(from_bytes.value)


def _cuts(name: str) -> list[int]:
    # A TIFF's last two bytes are zeros of a pointer to no further page: without them it is still whole.
    size = len(files()[name]) - (2 if name == "stack.tif" else 0)
    # Every byte of both ends, where the structure lies, and a sample of the middle.
    ends = {*range(1, min(size, 64)), *range(max(1, size - 32), size)}
    return sorted(ends | {int(n) for n in np.linspace(1, size - 1, 60)})


# Text of which nobody can say that more was to come.
TEXT_ENDINGS = ("txt", "csv", "tsv", "fa", "obj", "text.ply")


@pytest.mark.parametrize(
    "name",
    sorted(name for name in files() if name.partition(".")[2] not in TEXT_ENDINGS),
)
def test_no_file_that_is_cut_anywhere_is_read(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = files()[name]
    for num_bytes in _cuts(name):
        with pytest.raises(InputError):
            read(data[:num_bytes], name, modality=Modality.VOLUME if name == "stack.tif" else None)


@pytest.mark.parametrize(
    ("name", "limits", "message"),
    [
        ("still.png", Limits(max_bytes=100), r"\d+ bytes; the limit is max_bytes=100"),
        ("still.png", Limits(max_pixels=203), "12 is 204 pixels; the limit is max_pixels=203"),
        ("moving.gif", Limits(max_frames=3), "4 frames; the limit is max_frames=3"),
        ("moving.gif", Limits(max_bytes=2_000), "max_bytes=2,000"),
        ("int16.wav", Limits(max_audio_s=0.1), r"0\.2 s of sound; the limit is max_audio_s=0\.1"),
        ("speech.opus", Limits(max_bytes=20_000), r"\d+,\d+ bytes decoded; the limit is max_bytes=20,000"),
        ("brain.nii", Limits(max_bytes=900), None),
        ("brain.nii.gz", Limits(max_bytes=831), "unzips to more than max_bytes=831"),
        ("volume.npz", Limits(max_bytes=600), "unzips to more than max_bytes=600"),
        ("prose.txt", Limits(max_text_bytes=8), "more than max_text_bytes=8 bytes of text"),
        ("genes.fa", Limits(max_text_bytes=8), "more than max_text_bytes=8 bytes of text"),
        ("table.csv", Limits(max_text_bytes=8), "more than max_text_bytes=8 bytes of text"),
    ],
)
def test_limits(name: str, limits: Limits, message: str | None) -> None:
    if message is None:
        list(records(files()[name], name, limits=limits))
        return
    with pytest.raises(InputError, match=message) as caught:
        list(records(files()[name], name, limits=limits))
    assert not isinstance(caught.value, MediaError)


def test_a_gzip_bomb_is_not_inflated() -> None:
    bomb = gzip.compress(npy(np.zeros(1 << 20)), mtime=0)
    assert len(bomb) < 10_000
    with pytest.raises(InputError, match=r"bomb\.npy\.gz: unzips to more than max_bytes=1,048,576"):
        read(bomb, "bomb.npy.gz", limits=Limits(max_bytes=1 << 20))


def test_the_header_alone_refuses_a_bomb() -> None:
    with pytest.raises(InputError, match="3,600,000,000 pixels"):
        probe(png_header(60_000, 60_000), "bomb.png")


def test_data_must_be_bytes_or_a_path() -> None:
    with pytest.raises(InputError, match="data of type bytearray: give bytes, or a path"):
        read(bytearray(b"x"))  # type: ignore[arg-type]
