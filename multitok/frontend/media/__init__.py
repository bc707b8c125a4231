"""Files and bytes <-> raw items of every modality, and everything that can be wrong with them.

    read(Path("photo.jpg"))                     uint8 [H, W, 3]
    read(data, "speech.wav")                    Waveform, at the file's own rate
    dict(records(Path("genes.fa")))             {"BRCA1": "ACGT...", ...}
    probe(Path("brain.nii.gz"))                 MediaInfo(VOLUME, (181, 217, 181)), from the header alone
    for part in iter_frames(Path("match.mp4"), fps=8):
        part.pixels, part.timestamps            uint8 [16, H, W, 3], exact seconds; one chunk in memory
    for chunk in iter_audio(Path("podcast.m4a")):
        chunk.samples                           float32 [C, one second]
    read_volume(Path("brain.nii.gz"))           float32 [Z, Y, X] in RAS, and a VolumeInfo: affine, spacing, window
    write(Path("photo.png"), Modality.IMAGE, pixels)

Content is checked against the name, sizes against `Limits` before anything is decoded, and whatever is cut short,
damaged or hostile is refused with an `InputError` or a `MediaError` that names the file and the reason.
"""

from multitok.frontend.media.clips import Clip, iter_frames, read_clip
from multitok.frontend.media.geometry import VolumeInfo
from multitok.frontend.media.kinds import modalities_of
from multitok.frontend.media.options import ReadOptions
from multitok.frontend.media.reader import (
    MediaInfo,
    Raw,
    Record,
    is_item_folder,
    modality_of,
    probe,
    probe_records,
    read,
    read_records,
    read_volume,
    records,
)
from multitok.frontend.media.sounds import iter_audio
from multitok.frontend.media.source import Limits
from multitok.frontend.media.timing import as_frame_rate
from multitok.frontend.media.windows import Window, normalise_volume, parse_window
from multitok.frontend.media.writer import default_extension, write, write_audio
from multitok.frontend.media.zarr_folder import is_zarr_folder

__all__ = [
    "Clip",
    "Limits",
    "MediaInfo",
    "Raw",
    "ReadOptions",
    "Record",
    "VolumeInfo",
    "Window",
    "as_frame_rate",
    "default_extension",
    "is_item_folder",
    "is_zarr_folder",
    "iter_audio",
    "iter_frames",
    "modalities_of",
    "modality_of",
    "normalise_volume",
    "parse_window",
    "probe",
    "probe_records",
    "read",
    "read_clip",
    "read_records",
    "read_volume",
    "records",
    "write",
    "write_audio",
]
