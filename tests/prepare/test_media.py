"""Pictures, clips, volumes and meshes in jobs: bad ones go to quarantine with their reason, options are in the plan."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

from multitok.economics import count_tokens
from multitok.errors import JobError
from multitok.frontend.media import ReadOptions, Window
from multitok.prepare import JobReport, prepare, verify
from multitok.protocol import Modality
from multitok.shards import ShardSet
from multitok.vocabulary import Vocabulary
from tests.frontend.media.clips_samples import written
from tests.frontend.media.samples import encoded_image, nifti, picture, volume
from tests.frontend.media.test_clips import animation, damaged
from tests.frontend.media.test_dicom import encoded, slice_of
from tests.frontend.media.test_mesh import box, obj
from tests.prepare.corpus import fingerprint_of, jpeg, quarantined, write_jsonl

RGB = picture(16, 24)


@pytest.fixture(scope="module")
def vision() -> Vocabulary:
    return Vocabulary.build(["text-bytes", "image-patch8", "video-patch4x8x8", "volume-patch4"])


def inline(sources: Any, vocabulary: Vocabulary, out: Path, **options: Any) -> JobReport:
    return prepare(sources, vocabulary, out, **{"executor": "inline", **options})


def tiff(array: Any) -> bytes:
    return encoded_image(Image.fromarray(array), "TIFF")


def zipped(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, values)
    return buffer.getvalue()


def bad() -> dict[str, tuple[bytes, str, str]]:
    """Name -> content, error, and words of the message."""
    nan = volume()
    nan[1, 2, 3] = np.nan
    cut = jpeg(2)
    return {
        "broken-packet.mp4": (damaged("b-frames.mp4", [14]), "MediaError", "damaged"),
        "broken.jpg": (cut[: len(cut) // 2], "MediaError", "Truncated"),
        "cut.gif": (animation("GIF", [40, 40])[:-30], "MediaError", "cut short"),
        "cut.mp4": (written(8)[:-500], "MediaError", "cut short"),
        "cut.nii.gz": (gzip.compress(nifti(volume()))[:-40], "MediaError", "cut short"),
        "float.tif": (tiff(volume()[0]), "MediaError", "32-bit floats"),
        "gap.dcm": (encoded(slice_of(0))[:-30], "MediaError", "DICOM"),
        "nan.nii": (nifti(nan), "InputError", "voxel [1, 2, 3] is nan"),
        "nan.npz": (zipped(nan), "InputError", "is nan"),
        "pages.tif": (
            encoded_image(Image.fromarray(RGB), "TIFF", save_all=True, append_images=[Image.fromarray(RGB)]),
            "MediaError",
            "2 frames or pages",
        ),
        "points.obj": (b"v 0 0 0\nv 1 1 1\n", "InputError", "no faces"),
        "wrong.ply": (b"ply\nformat ascii 1.0\nend_header\n", "InputError", "no faces"),
    }


def good() -> dict[str, bytes]:
    alpha = np.dstack([RGB, np.full(RGB.shape[:2], 90, np.uint8)])
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "16-bit.png": encoded_image(Image.fromarray(RGB[:, :, 0].astype(np.uint16) * 257), "PNG"),
        "alpha.png": encoded_image(Image.fromarray(alpha), "PNG"),
        "animated.gif": animation("GIF", [40, 400, 40]),
        "bilevel.png": encoded_image(Image.fromarray(RGB[:, :, 0]).convert("1"), "PNG"),
        "box.obj": obj(*box()),
        "brain.nii.gz": gzip.compress(nifti(volume())),
        "clip.mp4": written(8),
        "cmyk.jpg": encoded_image(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
        "grey-alpha.png": encoded_image(Image.fromarray(alpha).convert("LA"), "PNG"),
        "long.png": encoded_image(Image.fromarray(np.zeros((1, 10_000, 3), np.uint8)), "PNG"),
        "one.png": encoded_image(Image.fromarray(np.zeros((1, 1, 3), np.uint8)), "PNG"),
        "palette.png": encoded_image(Image.fromarray(RGB).quantize(16), "PNG"),
        "turned.jpg": encoded_image(Image.fromarray(RGB), "JPEG", exif=exif),
    }


def test_every_bad_file_is_quarantined_with_its_reason_and_the_good_ones_are_not(
    vision: Vocabulary, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    files = bad()
    for name, data in {**good(), **{name: row[0] for name, row in files.items()}}.items():
        (root / name).write_bytes(data)
    report = inline([root], vision, tmp_path / "out", error_budget=len(files))
    found = quarantined(tmp_path / "out")
    # The one DICOM file is the series of its folder.
    names = {name: "data/*.dcm" if name.endswith(".dcm") else f"data/{name}" for name in files}
    assert set(found) == set(names.values())
    for name, (_, error, words) in files.items():
        assert found[names[name]][0] == error, (name, found[names[name]])
        assert words in found[names[name]][1], (name, found[names[name]])
        assert str(tmp_path) not in found[names[name]][1]
    assert {sequence.id for sequence in ShardSet(tmp_path / "out")} == {f"data/{name}" for name in good()}
    assert report.modalities[Modality.VOLUME].items >= 2
    assert verify(tmp_path / "out", sample=50).num_documents == len(good())


def test_options_change_the_output_and_are_part_of_the_plan(vision: Vocabulary, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for name in ("clip.mp4", "animated.gif", "brain.nii.gz", "box.obj"):
        (root / name).write_bytes(good()[name])
    plain = inline([root], vision, tmp_path / "plain")
    reading = ReadOptions(fps=100, window=Window(20, 60), mesh_resolution=16)  # type: ignore[arg-type]
    other = inline([root], vision, tmp_path / "other", reading=reading)
    assert other.num_tokens != plain.num_tokens
    assert verify(tmp_path / "other", sample=50).num_documents == 4
    for name, options in (("plain", ReadOptions()), ("other", reading)):
        counted = count_tokens([root], vision, reading=options)
        assert counted.num_tokens == {"plain": plain, "other": other}[name].num_tokens
    before = fingerprint_of(tmp_path / "other")
    inline([root], vision, tmp_path / "other", reading=reading)
    assert fingerprint_of(tmp_path / "other") == before
    with pytest.raises(JobError, match=r"reading was .*now"):
        inline([root], vision, tmp_path / "other")


def scans(root: Path) -> Path:
    """A study of two series in one folder beside a photo, one series without endings, and a Zarr array."""
    for series, place in (("one", "study"), ("two", "study"), ("three", "bare/deep")):
        (root / place).mkdir(parents=True, exist_ok=True)
        for z in range(4):
            ending = ".dcm" if place == "study" else ""
            (root / place / f"{series}-{z}{ending}").write_bytes(encoded(slice_of(z, series=series)))
    (root / "study" / "photo.png").write_bytes(good()["alpha.png"])
    zarr.save_array(str(root / "brain.zarr"), volume())
    return root


def test_folders_of_slices_and_zarr_folders_are_items(vision: Vocabulary, tmp_path: Path) -> None:
    root = scans(tmp_path / "scans")
    inline([root], vision, tmp_path / "out")
    ids = [sequence.id for sequence in ShardSet(tmp_path / "out")]
    series = sorted(str(slice_of(0, series=name).SeriesInstanceUID) for name in ("one", "two"))
    assert ids == [
        "scans/bare/deep",
        "scans/brain.zarr",
        *(f"scans/study#{each}" for each in series),
        "scans/study/photo.png",
    ]
    assert count_tokens([root], vision).num_tokens == sum(len(sequence) for sequence in ShardSet(tmp_path / "out"))
    assert verify(tmp_path / "out", sample=9).num_documents == 5
    for source, expected in (("bare/deep", ["deep/*.dcm"]), ("brain.zarr", ["brain.zarr"])):
        out = tmp_path / source.replace("/", "-")
        inline([root / source], vision, out)
        assert [sequence.id for sequence in ShardSet(out)] == [f"{Path(source).name}/{Path(e).name}" for e in expected]
    documents = write_jsonl(tmp_path / "documents.jsonl", [{"id": "x", "text": "a", "volume": "scans/bare/deep"}])
    assert inline([documents], vision, tmp_path / "lines").num_quarantined == 0


def test_a_gap_in_a_series_is_quarantined_and_a_slice_that_goes_ends_the_job(
    vision: Vocabulary, tmp_path: Path
) -> None:
    root = scans(tmp_path / "scans")
    (root / "bare" / "deep" / "three-1").unlink()
    inline([root], vision, tmp_path / "out", error_budget=1)
    error, message = quarantined(tmp_path / "out")["scans/bare/deep"]
    assert error == "InputError"
    assert "missing between" in message
    (tmp_path / "out" / "shard-00000.done.json").unlink()
    (root / "bare" / "deep" / "three-2").unlink()
    with pytest.raises(JobError, match="changed since the job began"):
        inline([root], vision, tmp_path / "out", error_budget=1)
