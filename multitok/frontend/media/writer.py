"""Raw items -> files: what `multitok decode` leaves behind.

| modality | by default | also                                                  | exact                              |
|----------|------------|-------------------------------------------------------|------------------------------------|
| TEXT     | .txt       | any other                                             | yes                                |
| IMAGE    | .png       | .webp (lossless), .npy                                | yes                                |
| VIDEO    | .webp      | .png .apng (animated), .npy                           | pixels yes; .npy also equal frames |
| VOLUME   | .npy       | .nii .nii.gz (with their place), .tif                  | yes                                |
| AUDIO    | .wav       | .flac                                                 | 16 bits, or float32 WAV            |
| SERIES   | .csv       | .tsv, .npy                                            | yes                                |
| SEQUENCE | .fasta     | .fa .fna .faa, .txt (bare letters)                    | yes                                |

An animation may store a run of equal frames as one; the .npy of a video keeps all.
"""

from __future__ import annotations

import errno
import gzip
import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError
from multitok.frontend.media.geometry import VolumeInfo
from multitok.frontend.media.kinds import extension_of
from multitok.frontend.media.nifti import encode_nifti
from multitok.protocol import Modality, Waveform

if TYPE_CHECKING:
    import soundfile

    from multitok.frontend.media.reader import Raw

_LINE_LETTERS = 60
_NO_SAMPLES = "the waveform has no samples, and an empty sound file cannot be read back"


@dataclass(frozen=True)
class _Options:
    extension: str
    record_id: str
    frame_rate_hz: float
    float_audio: bool
    place: VolumeInfo


def write(
    path: str | os.PathLike[str],
    modality: Modality,
    raw: Raw,
    *,
    record_id: str = "sequence",
    frame_rate_hz: float = 8.0,
    float_audio: bool = False,
    place: VolumeInfo | None = None,
) -> Path:
    """Write a raw item to a file whose extension names the format; without one, the modality's default is added.

    Args:
        path: Where to; its folder must exist.
        modality: What `raw` is.
        raw: The item, of the type that `Modality` lists.
        record_id: Name of the FASTA record.
        frame_rate_hz: Frames per second of an animation.
        float_audio: WAV of 32-bit floats in place of 16-bit integers, which are clipped to [-1, 1].
        place: Where a volume's voxels lie: a .nii gets its affine, and its values the unit they had before their
            window. None: one millimetre a voxel, values as given.

    Returns:
        The file's path.

    Raises:
        InputError: The extension is not one this modality is written to, or `raw` is of the wrong type or shape.
        FileNotFoundError: The folder does not exist.
    """
    path, extension = _target(path, modality)
    _check(path.name, modality, raw)
    options = _Options(extension, record_id, frame_rate_hz, float_audio, place or VolumeInfo())
    try:
        data = _WRITERS[modality].get(extension, _text)(raw, options)
    except UnicodeEncodeError as error:
        letter = error.object[error.start]
        codec = error.encoding.upper()
        raise InputError(
            f"{path.name}: {letter!r} at character {error.start:,} cannot be written as {codec}"
        ) from error
    if extension == "nii" and path.suffix.lower() == ".gz":
        data = gzip.compress(data, mtime=0)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(data)
    os.replace(temporary, path)
    return path


def write_audio(
    path: str | os.PathLike[str],
    chunks: Iterable[NDArray[np.float32]],
    sample_rate_hz: int,
    *,
    float_audio: bool = False,
) -> Path:
    """Write one channel of sound that comes in chunks, one of which is in memory at a time.

    Args:
        path: Where to, a .wav or .flac; without an extension .wav is added; its folder must exist.
        chunks: Samples [n].
        sample_rate_hz: Their rate.
        float_audio: As in `write`.

    Returns:
        The file's path; the file is that which `write` makes of all samples.

    Raises:
        InputError: Another extension, or there is no sample.
        FileNotFoundError: The folder does not exist.
    """
    path, extension = _target(path, Modality.AUDIO)
    temporary = path.with_name(f".{path.name}.partial")
    num_samples = 0
    try:
        with temporary.open("wb") as file, _sound_file(file, 1, sample_rate_hz, extension, float_audio) as sound:
            for samples in chunks:
                sound.write(_clipped(samples, sound))
                num_samples += samples.size
        if not num_samples:
            raise InputError(f"{path.name}: {_NO_SAMPLES}")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def default_extension(modality: Modality) -> str:
    """The extension, without its dot, of the format that items of a modality are written to where none is named."""
    return next(iter(_WRITERS[modality]))


def _target(path: str | os.PathLike[str], modality: Modality) -> tuple[Path, str]:
    """Where to write, and the extension that names the format."""
    writers = _WRITERS[modality]
    path = Path(path)
    path = path if path.suffix else path.with_name(f"{path.name}.{default_extension(modality)}")
    extension = extension_of(path.name)
    is_zipped = path.suffix.lower() == ".gz"
    if modality is not Modality.TEXT and (extension not in writers or (is_zipped and extension != "nii")):
        allowed = ", ".join("." + name for name in writers)
        raise InputError(f"{path.name}: {modality} is written to {allowed}; convert from one of them")
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder: make it first", str(path.parent))
    return path, extension


def _check(name: str, modality: Modality, raw: Any) -> None:
    expected: dict[Modality, tuple[type[Any], Any, int | None, str]] = {
        Modality.TEXT: (str, None, None, "str"),
        Modality.SEQUENCE: (str, None, None, "str"),
        Modality.AUDIO: (Waveform, None, None, "Waveform"),
        Modality.IMAGE: (np.ndarray, np.uint8, 3, "uint8 [H, W, 3]"),
        Modality.VIDEO: (np.ndarray, np.uint8, 4, "uint8 [T, H, W, 3]"),
        Modality.VOLUME: (np.ndarray, np.float32, 3, "float32 [Z, Y, X]"),
        Modality.SERIES: (np.ndarray, np.float32, 2, "float32 [N, C]"),
    }
    kind, dtype, ndim, words = expected[modality]
    is_rgb = modality in (Modality.IMAGE, Modality.VIDEO)
    if (
        not isinstance(raw, kind)
        or (isinstance(raw, np.ndarray) and (raw.dtype != dtype or raw.ndim != ndim or raw.size == 0))
        or (is_rgb and raw.shape[-1] != 3)
    ):
        given = f"{raw.dtype} {list(raw.shape)}" if isinstance(raw, np.ndarray) else type(raw).__name__
        raise InputError(f"{name}: {modality} is {words} with something in it, not {given}")
    if isinstance(raw, Waveform) and not raw.samples.size:
        raise InputError(f"{name}: {_NO_SAMPLES}")


def _text(raw: Any, options: _Options) -> bytes:
    return str(raw).encode("utf-8")


def _fasta(raw: Any, options: _Options) -> bytes:
    lines = [raw[start : start + _LINE_LETTERS] for start in range(0, len(raw), _LINE_LETTERS)]
    return "\n".join([f">{options.record_id}", *lines, ""]).encode("ascii")


def _npy(raw: Any, options: _Options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(raw), allow_pickle=False)
    return buffer.getvalue()


def _nifti(raw: NDArray[np.float32], options: _Options) -> bytes:
    return encode_nifti(raw, options.place)


def _stack(raw: NDArray[np.float32], options: _Options) -> bytes:
    from PIL import Image

    pages = [Image.fromarray(np.ascontiguousarray(page)) for page in raw]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    return buffer.getvalue()


def _table(raw: Any, options: _Options) -> bytes:
    delimiter = "\t" if options.extension == "tsv" else ","
    # A float32 prints as the shortest decimal that reads back as itself, a missing value as "nan".
    rows = (delimiter.join(str(value) for value in row) for row in raw)
    names = delimiter.join(f"channel_{c}" for c in range(raw.shape[1]))
    return "\n".join([names, *rows, ""]).encode("ascii")


def _picture(raw: NDArray[np.uint8], options: _Options) -> bytes:
    from PIL import Image

    format_name = "WEBP" if options.extension == "webp" else "PNG"
    stack = raw if raw.ndim == 4 else raw[None]
    frames = [Image.fromarray(np.ascontiguousarray(frame)) for frame in stack]
    buffer = io.BytesIO()
    animation = {
        "save_all": True,
        "append_images": frames[1:],
        "duration": round(1000 / options.frame_rate_hz),
        "loop": 0,
    }
    lossless = {"lossless": True, "quality": 80} if format_name == "WEBP" else {}
    frames[0].save(buffer, format_name, **lossless, **(animation if len(frames) > 1 else {}))
    return buffer.getvalue()


def _sound(raw: Any, options: _Options) -> bytes:
    buffer = io.BytesIO()
    channels, rate_hz = len(raw.samples), raw.sample_rate_hz
    with _sound_file(buffer, channels, rate_hz, options.extension, options.float_audio) as sound:
        sound.write(_clipped(raw.samples.T, sound))
    return buffer.getvalue()


def _sound_file(
    file: BinaryIO, channels: int, sample_rate_hz: int, extension: str, float_audio: bool
) -> soundfile.SoundFile:
    import soundfile

    subtype = "FLOAT" if float_audio and extension == "wav" else "PCM_16"
    return soundfile.SoundFile(file, "w", sample_rate_hz, channels, subtype, format=extension.upper())


def _clipped(samples: NDArray[np.float32], sound: soundfile.SoundFile) -> NDArray[np.float32]:
    # libsndfile wraps what lies above 1 on some formats; a clipped peak is heard, a wrapped one hurts.
    return samples if sound.subtype == "FLOAT" else np.clip(samples, -1.0, 1.0)


_Writer = Callable[[Any, _Options], bytes]
_WRITERS: dict[Modality, dict[str, _Writer]] = {
    Modality.TEXT: {"txt": _text},
    Modality.IMAGE: {"png": _picture, "webp": _picture, "npy": _npy},
    Modality.VIDEO: {"webp": _picture, "png": _picture, "apng": _picture, "npy": _npy},
    Modality.VOLUME: {"npy": _npy, "nii": _nifti, "tif": _stack, "tiff": _stack},
    Modality.AUDIO: {"wav": _sound, "flac": _sound},
    Modality.SERIES: {"csv": _table, "tsv": _table, "npy": _npy},
    Modality.SEQUENCE: dict.fromkeys(("fasta", "fa", "fna", "faa"), _fasta) | {"txt": _text},
}
