"""Which modality a file holds: by its name, and by its first bytes.

The content rules. A name only says what is expected: a PNG named `photo.jpg` is read as the picture it is,
but sound named `photo.jpg` is refused, because something upstream is wrong.

| modality | extensions                                                                             |
|----------|----------------------------------------------------------------------------------------|
| TEXT     | txt md rst tex html htm xml svg json yaml yml toml ini cfg log srt vtt css js ts jsx   |
|          | tsx py c h cc cpp hpp cu java go rs rb sh sql                                          |
| IMAGE    | png jpg jpeg jpe jfif webp bmp dib tif tiff gif                                        |
| VIDEO    | apng mp4 m4v mov 3gp mkv webm avi mpg mpeg mts m2ts; animated png, webp and gif        |
| AUDIO    | wav wave flac ogg oga opus mp3 aif aiff aifc m4a m4b mka weba aac wma amr awb g722;    |
|          | the sound track of a video on request                                                  |
| VOLUME   | nii dcm obj ply; npy and npz with three axes; tif and tiff on request; folders of      |
|          | DICOM slices, and Zarr folders (zarr)                                                  |
| SERIES   | csv tsv; npy and npz with one or two axes; plain text on request                       |
| SEQUENCE | fa fasta fna faa ffn frn; plain text on request                                        |

`.gz` may follow any of them. "On request": only where the caller gives `modality=`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

from multitok.errors import InputError, MediaError
from multitok.protocol import Modality

HEAD_BYTES = 512
"""How much of a file `sniff` wants to see; NIfTI keeps its magic at byte 344."""

_TEXT, _IMAGE, _VIDEO, _AUDIO = Modality.TEXT, Modality.IMAGE, Modality.VIDEO, Modality.AUDIO
_VOLUME, _SERIES, _SEQUENCE = Modality.VOLUME, Modality.SERIES, Modality.SEQUENCE


@dataclass(frozen=True)
class Format:
    """A file format, and how its first bytes announce it.

    Args:
        name: Short key, "png".
        label: What messages call it, "a PNG image".
        modalities: What it can be read as; empty for formats that are recognised only to be named.
        matches: True where the first bytes are this format's.
    """

    name: str
    label: str
    modalities: tuple[Modality, ...]
    matches: Callable[[bytes], bool]


def _starts(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magics)


def _riff(kind: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == kind


def _is_nifti(head: bytes) -> bool:
    if head[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c"):
        return head[4:12] == b"n+2\0\r\n\x1a\n"
    return head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c") and head[344:348] in (b"n+1\0", b"ni1\0")


def is_dicom(head: bytes) -> bool:
    """Whether a file's first bytes are those of a DICOM file."""
    return head[128:132] == b"DICM"


def _is_transport_stream(head: bytes) -> bool:
    # Packets of 188 bytes, or of 192 with a time before each.
    return any(len(head) > 2 * size + at and head[at::size][:3] == b"GGG" for at, size in ((0, 188), (4, 192)))


def _is_mp3(head: bytes) -> bool:
    if head.startswith(b"ID3"):
        return True
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    # Layer III only: the byte order mark of UTF-16 would pass as layer I.
    version, layer, bitrate, rate = (head[1] >> 3) & 3, (head[1] >> 1) & 3, head[2] >> 4, (head[2] >> 2) & 3
    return version != 1 and layer == 1 and bitrate != 15 and rate != 3


def _is_aac(head: bytes) -> bool:
    # An ADTS frame: sync word, layer 0, one of 13 sample rates, and a length that holds its own header.
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or (head[2] >> 2) & 15 > 12:
        return False
    return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5 > 7


FORMATS: tuple[Format, ...] = (
    Format("png", "a PNG image", (_IMAGE, _VIDEO), _starts(b"\x89PNG\r\n\x1a\n")),
    Format("jpeg", "a JPEG image", (_IMAGE,), _starts(b"\xff\xd8\xff")),
    Format("webp", "a WebP image", (_IMAGE, _VIDEO), _riff(b"WEBP")),
    Format("gif", "a GIF image", (_IMAGE, _VIDEO), _starts(b"GIF87a", b"GIF89a")),
    Format("bmp", "a BMP image", (_IMAGE,), lambda head: head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"),
    Format("tiff", "a TIFF image", (_IMAGE, _VOLUME), _starts(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    Format("wav", "RIFF/WAVE audio", (_AUDIO,), _riff(b"WAVE")),
    Format("flac", "FLAC audio", (_AUDIO,), _starts(b"fLaC")),
    Format("ogg", "Ogg audio", (_AUDIO,), _starts(b"OggS")),
    Format("aiff", "AIFF audio", (_AUDIO,), lambda head: head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC")),
    Format("mp3", "MP3 audio", (_AUDIO,), _is_mp3),
    Format("aac", "AAC audio", (_AUDIO,), _is_aac),
    Format("amr", "AMR audio", (_AUDIO,), _starts(b"#!AMR\n", b"#!AMR-WB\n")),
    Format("asf", "WMA audio", (_AUDIO,), _starts(bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"))),
    Format("avi", "an AVI video", (_VIDEO, _AUDIO), _riff(b"AVI ")),
    Format("heif", "a HEIF or AVIF image", (), lambda head: head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"avi")),
    Format("iso", "an MP4 or QuickTime video", (_VIDEO, _AUDIO), lambda head: head[4:8] in (b"ftyp", b"moov", b"wide")),
    Format("matroska", "a Matroska or WebM video", (_VIDEO, _AUDIO), _starts(b"\x1a\x45\xdf\xa3")),
    Format("mpeg", "an MPEG video", (_VIDEO, _AUDIO), _starts(b"\0\0\x01\xba", b"\0\0\x01\xb3")),
    Format("mpegts", "an MPEG transport stream", (_VIDEO, _AUDIO), _is_transport_stream),
    Format("nifti", "a NIfTI volume", (_VOLUME,), _is_nifti),
    Format("dicom", "a DICOM file", (_VOLUME,), is_dicom),
    Format("ply", "a PLY mesh", (_VOLUME,), _starts(b"ply\n", b"ply\r\n")),
    Format("npy", "a NumPy array", (_IMAGE, _VIDEO, _VOLUME, _SERIES), _starts(b"\x93NUMPY")),
    # Whatever else is zipped (.docx, .jar) is refused when no array is found inside.
    Format("npz", "a zip archive", (_IMAGE, _VIDEO, _VOLUME, _SERIES), _starts(b"PK\x03\x04", b"PK\x05\x06")),
    Format("gzip", "gzip data (name it .gz)", (), _starts(b"\x1f\x8b")),
    Format("pdf", "a PDF document", (), _starts(b"%PDF-")),
    Format("parquet", "a Parquet table", (), _starts(b"PAR1")),
    Format("hdf5", "an HDF5 file", (), _starts(b"\x89HDF\r\n\x1a\n")),
    Format("elf", "an executable", (), _starts(b"\x7fELF")),
    Format("tar", "a tar archive", (), lambda head: head[257:262] == b"ustar"),
)

PLAIN = Format("plain", "plain text", (_TEXT, _SERIES, _SEQUENCE), matches=lambda head: False)
"""What files are that announce nothing: prose, tables of numbers, FASTA."""

OBJ = Format("obj", "an OBJ mesh", (_VOLUME,), matches=lambda head: False)
"""Text that announces nothing either, and is taken for a mesh by its name alone."""

G722 = Format("g722", "G.722 audio", (_AUDIO,), matches=lambda head: False)
"""Sound without a header, taken for it by its name alone."""

_TEXT_EXTENSIONS = (
    "txt md rst tex html htm xml svg json yaml yml toml ini cfg log srt vtt css js ts jsx tsx "
    "py c h cc cpp hpp cu java go rs rb sh sql"
)
# Extension -> what a file of that name may hold; the first is what to expect before the content is known.
_EXTENSIONS: dict[str, tuple[Modality, ...]] = {
    extension: modalities
    for extensions, modalities in (
        (_TEXT_EXTENSIONS, (_TEXT, _SEQUENCE, _SERIES)),
        ("jpg jpeg jpe jfif bmp dib", (_IMAGE,)),
        ("png webp gif", (_IMAGE, _VIDEO)),
        ("tif tiff", (_IMAGE, _VOLUME)),
        ("apng", (_VIDEO, _IMAGE)),
        ("mp4 m4v mov 3gp mkv webm avi mpg mpeg mts m2ts", (_VIDEO,)),
        ("wav wave flac ogg oga opus mp3 aif aiff aifc m4a m4b mka weba aac wma asf amr awb g722", (_AUDIO,)),
        ("nii dcm obj ply zarr", (_VOLUME,)),
        ("npy npz", (_VOLUME, _SERIES, _IMAGE, _VIDEO)),
        ("csv tsv", (_SERIES, _TEXT)),
        ("fa fasta fna faa ffn frn", (_SEQUENCE, _TEXT)),
    )
    for extension in extensions.split()
}


def extension_of(name: str) -> str:
    """The extension in lower case, without its dot and without a trailing `.gz`: "T1.NII.gz" has "nii"."""
    path = PurePath(name.lower())
    path = path.with_suffix("") if path.suffix == ".gz" else path
    return path.suffix[1:]


def modalities_of(name: str) -> tuple[Modality, ...]:
    """What a file of this name may hold, the most likely first; empty where the extension is unknown.

    "x.jpg" may hold an image only, "x.webp" an image or a video, "x.npy" a volume, a series, an image or a video.
    """
    return _EXTENSIONS.get(extension_of(name), ())


def sniff(head: bytes) -> Format:
    """The format of a file from its first `HEAD_BYTES`; `PLAIN` where they announce nothing."""
    return next((entry for entry in FORMATS if entry.matches(head)), PLAIN)


def resolve(head: bytes, name: str, modality: Modality | None) -> tuple[Format, tuple[Modality, ...]]:
    """The format that the bytes have, and what they may be read as.

    Args:
        head: The first `HEAD_BYTES` of the content, unzipped.
        name: File name, for its extension and for messages.
        modality: What the caller asks for; None leaves it to name and content.

    Returns:
        The format, and one or more modalities: where there are several, the decoder picks by what it finds.

    Raises:
        InputError: There is no content.
        MediaError: The content is not what the name or the caller says, or nothing this reads.
    """
    if not head:
        raise InputError(f"{name}: the file is empty (0 bytes)")
    found = sniff(head)
    expected = (modality,) if modality else modalities_of(name)
    if found is not PLAIN and expected and expected[0] in PLAIN.modalities and b"\0" not in head:
        # Prose may begin with any letters, with "BM" and "GIF89a" too; the binary formats have zero bytes early on.
        found = PLAIN if expected[0] not in found.modalities else found
    if extension_of(name) == "g722" and expected == (_AUDIO,) and (found is PLAIN or _AUDIO in found.modalities):
        return G722, (_AUDIO,)
    if found is PLAIN and extension_of(name) == "obj" and _VOLUME in expected and b"\0" not in head:
        return OBJ, (_VOLUME,)
    if found is PLAIN:
        return PLAIN, (_plain_modality(head, name, modality, expected),)
    candidates = tuple(member for member in expected if member in found.modalities)
    if candidates:
        return found, candidates
    if not found.modalities:
        raise MediaError(f"{name}: holds {found.label}, which is not read here")
    if expected:
        raise MediaError(
            f"{name}: holds {found.label}, but {_claim(modality, expected)}; "
            f"give modality={found.modalities[0].value!r} or the right file"
        )
    return found, found.modalities


def _plain_modality(head: bytes, name: str, modality: Modality | None, expected: tuple[Modality, ...]) -> Modality:
    if not expected:
        raise MediaError(
            f"{name}: neither its extension nor its first bytes {head[:8]!r} say what it holds; "
            f"give modality= ({', '.join(member.value for member in Modality)})"
        )
    if expected[0] in PLAIN.modalities:
        return expected[0]
    readable = [
        entry.label.removeprefix("an ").removeprefix("a ") for entry in FORMATS if expected[0] in entry.modalities
    ]
    raise MediaError(
        f"{name}: {_claim(modality, expected)}, but its first bytes {head[:8]!r} are of no {expected[0]} format "
        f"that is read here ({', '.join(readable)})"
    )


def _claim(modality: Modality | None, expected: tuple[Modality, ...]) -> str:
    return f"modality={modality.value!r} was asked for" if modality else f"its name says {expected[0]}"
