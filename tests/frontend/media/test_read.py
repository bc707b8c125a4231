"""What every format gives: the right raw item, and a header that agrees with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from multitok.errors import InputError
from multitok.frontend import media
from multitok.frontend.media import MediaInfo, modalities_of, modality_of, probe, probe_records, read, records
from multitok.protocol import Modality, Waveform
from tests.frontend.media import samples

FILES = samples.files()
ONE_ITEM = sorted(set(FILES) - {"genes.fa", "stack.tif"})
SAMPLE_DATA = Path(__file__).parents[3] / "examples" / "data"


def info_of(raw: Any, modality: Modality) -> MediaInfo:
    """What `probe` has to say of a decoded item."""
    if modality is Modality.AUDIO:
        return MediaInfo(modality, (raw.samples.shape[1],), raw.sample_rate_hz)
    if modality is Modality.TEXT:
        return MediaInfo(modality, (len(raw.encode()),))
    if modality is Modality.SEQUENCE:
        return MediaInfo(modality, (len(raw),))
    return MediaInfo(modality, raw.shape[:-1] if modality in (Modality.IMAGE, Modality.VIDEO) else raw.shape)


def is_of(raw: Any, modality: Modality) -> bool:
    """Whether `raw` has the type, rank and dtype that `Modality` promises."""
    if modality in (Modality.TEXT, Modality.SEQUENCE):
        return isinstance(raw, str)
    if modality is Modality.AUDIO:
        return isinstance(raw, Waveform) and raw.samples.flags.c_contiguous
    is_rgb = modality in (Modality.IMAGE, Modality.VIDEO)
    rank = {Modality.IMAGE: 3, Modality.VIDEO: 4, Modality.VOLUME: 3, Modality.SERIES: 2}[modality]
    dtype = np.uint8 if is_rgb else np.float32
    return raw.dtype == dtype and raw.ndim == rank and raw.flags.c_contiguous and (not is_rgb or raw.shape[-1] == 3)


@pytest.mark.parametrize("name", ONE_ITEM)
def test_probe_agrees_with_what_read_gives(name: str, tmp_path: Path) -> None:
    raw = read(FILES[name], name)
    info = probe(FILES[name], name)
    assert info == info_of(raw, info.modality)
    assert is_of(raw, info.modality)
    assert modality_of(name, FILES[name]) is info.modality
    assert info.modality in modalities_of(name)
    path = tmp_path / name
    path.write_bytes(FILES[name])
    assert probe(path) == info
    assert np.array_equal(
        getattr(read(path), "samples", read(path)), getattr(raw, "samples", raw), equal_nan=False
    ) or (info.modality is Modality.SERIES)


@pytest.mark.parametrize("path", sorted(SAMPLE_DATA.rglob("*.*")), ids=lambda path: path.name)
def test_the_sample_data_are_read_and_probed_alike(path: Path) -> None:
    if not modalities_of(path.name):
        assert path.suffix in {".jsonl"}
        return
    for (raw_id, raw), (probe_id, info) in zip(records(path), probe_records(path), strict=True):
        assert raw_id == probe_id
        assert is_of(raw, info.modality)
        assert info == info_of(raw, info.modality)


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("a.TXT", Modality.TEXT),
        ("a.jpeg", Modality.IMAGE),
        ("a.gif", Modality.IMAGE),
        ("a.apng", Modality.VIDEO),
        ("a.MP4", Modality.VIDEO),
        ("a.opus", Modality.AUDIO),
        ("T1.NII.gz", Modality.VOLUME),
        ("a.npy", Modality.VOLUME),
        ("a.csv", Modality.SERIES),
        ("genome.fna.gz", Modality.SEQUENCE),
        ("README", None),
        (".png", None),
        ("a.gz", None),
        ("a.jsonl", None),
    ],
)
def test_a_name_says_what_to_expect(name: str, modality: Modality | None) -> None:
    assert modality_of(name) is modality


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("still.gif", Modality.IMAGE),
        ("moving.gif", Modality.VIDEO),
        ("moving.webp", Modality.VIDEO),
        ("still.webp", Modality.IMAGE),
        ("series.npy", Modality.SERIES),
        ("image.npy", Modality.IMAGE),
        ("video.npy", Modality.VIDEO),
        ("volume.npz", Modality.VOLUME),
    ],
)
def test_the_content_decides_where_a_name_cannot(name: str, modality: Modality) -> None:
    assert modality_of(name, FILES[name]) is modality


def test_the_content_decides_without_an_extension() -> None:
    assert np.array_equal(read(FILES["still.png"], "upload"), samples.picture())
    assert modality_of("upload", FILES["sound.flac"]) is Modality.AUDIO


def test_the_same_modality_under_another_name_is_read() -> None:
    assert np.array_equal(read(FILES["still.png"], "photo.jpg"), samples.picture())
    assert isinstance(read(FILES["sound.flac"], "speech.wav"), Waveform)


def test_the_caller_decides_where_several_readings_are_possible() -> None:
    assert read(FILES["still.png"], "x.png", modality=Modality.VIDEO).shape == (1, 12, 17, 3)
    assert read(FILES["image.npy"], "x.npy", modality=Modality.VOLUME).dtype == np.float32
    assert read(
        FILES["stack.tif"], "x.tif", modality=Modality.VOLUME, options=media.ReadOptions(window="stored")
    ).tolist() == (samples.volume().tolist())
    assert probe(FILES["stack.tif"], "x.tif", modality=Modality.VOLUME).extent == (4, 5, 6)
    assert read(b"ACGT\n", "x.txt", modality=Modality.SEQUENCE) == "ACGT"
    assert read(b"1,2\n", "x.txt", modality=Modality.SERIES).tolist() == [[1.0, 2.0]]
    assert read(b"a,b\n1,2\n", "x.csv", modality=Modality.TEXT) == "a,b\n1,2\n"


def test_records_name_the_records() -> None:
    assert list(records(FILES["genes.fa"], "genes.fa")) == [("one", "ACGTacgtN"), ("two", "TTT")]
    assert list(probe_records(FILES["genes.fa"], "genes.fa")) == [
        ("one", MediaInfo(Modality.SEQUENCE, (9,))),
        ("two", MediaInfo(Modality.SEQUENCE, (3,))),
    ]
    assert [record_id for record_id, _ in records(FILES["still.png"], "still.png")] == [""]
    with pytest.raises(InputError, match=r"genes.fa: holds several records; take them one by one with records\(\)"):
        read(FILES["genes.fa"], "genes.fa")


def test_text_is_read_unchanged() -> None:
    content = "\ufeffone\r\ntwo\rthree\n\x00\u2028"
    assert read(content.encode(), "a.txt") == content


@pytest.mark.parametrize(
    "prose", ["BMW builds cars", "GIF89a is a format", "RIFF, n.: a phrase", "ID3 tags", "PK\x03\x04"]
)
def test_prose_may_begin_like_a_binary_format(prose: str) -> None:
    assert read(prose.encode(), "a.md") == prose


def test_a_missing_file_is_the_usual_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent.png")


def test_importing_loads_no_decoder() -> None:
    code = (
        "import sys, multitok.frontend.media; "
        "print([name for name in ('PIL', 'soundfile', 'av', 'torch', 'scipy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_public_names_are_the_ones_listed() -> None:
    public = {name for name, value in vars(media).items() if name[0] != "_" and not isinstance(value, ModuleType)}
    assert set(media.__all__) == public
