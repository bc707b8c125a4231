"""Files and bytes <-> raw items of every modality, and everything that can be wrong with them.

    read(Path("photo.jpg"))                     uint8 [H, W, 3]
    read(data, "speech.wav")                    Waveform, at the file's own rate
    dict(records(Path("genes.fa")))             {"BRCA1": "ACGT...", ...}
    probe(Path("brain.nii.gz"))                 MediaInfo(VOLUME, (181, 217, 181)), from the header alone
    write(Path("photo.png"), Modality.IMAGE, pixels)

Content is checked against the name, sizes against `Limits` before anything is decoded, and whatever is cut short,
damaged or hostile is refused with an `InputError` or a `MediaError` that names the file and the reason.
"""

from multitok.frontend.media.kinds import modalities_of
from multitok.frontend.media.reader import (
    MediaInfo,
    Raw,
    modality_of,
    probe,
    probe_records,
    read,
    records,
)
from multitok.frontend.media.source import Limits
from multitok.frontend.media.volume import normalise_volume
from multitok.frontend.media.writer import default_extension, write

__all__ = [
    "Limits",
    "MediaInfo",
    "Raw",
    "default_extension",
    "modalities_of",
    "modality_of",
    "normalise_volume",
    "probe",
    "probe_records",
    "read",
    "records",
    "write",
]
