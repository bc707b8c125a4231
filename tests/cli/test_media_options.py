"""Files of other kinds on the command line: frame rate, window, folders, and what comes back where it lay."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from multitok.cli import cli
from multitok.codes_file import read_codes
from multitok.frontend.media import read_clip, read_volume
from tests.frontend.media.clips_samples import written
from tests.frontend.media.samples import nifti, volume
from tests.frontend.media.test_clips import animation
from tests.frontend.media.test_dicom import encoded, folder, slice_of
from tests.frontend.media.test_geometry import affine
from tests.frontend.media.test_mesh import box, obj


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)


def ok(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def extent(path: Path) -> tuple[int, ...]:
    ((_, codes),) = read_codes(path).items
    return codes.extent


def test_a_volume_comes_back_where_it_lay(tmp_path: Path) -> None:
    import nibabel

    image = nibabel.Nifti1Image(np.random.default_rng(0).random((8, 9, 10)) * 100, affine(4, (1, 0, 2), (1, -1, 1)))
    nibabel.save(image, tmp_path / "brain.nii.gz")
    ok("encode", tmp_path / "brain.nii.gz", "--window", "0:100")
    assert extent(tmp_path / "brain.nii.gz.codes") == nibabel.as_closest_canonical(image).shape[::-1]
    ok("decode", tmp_path / "brain.nii.gz.codes")
    back = nibabel.load(tmp_path / "brain.nii.gz.decoded.nii.gz")
    canonical = nibabel.as_closest_canonical(image)
    assert np.allclose(back.affine, canonical.affine, atol=1e-4)
    assert abs(back.get_fdata().mean() - canonical.get_fdata().mean()) < 5
    ok("encode", tmp_path / "brain.nii.gz", "--orientation", "stored")
    assert extent(tmp_path / "brain.nii.gz.codes") == image.shape[::-1]
    (tmp_path / "plain.nii.gz").write_bytes(gzip.compress(nifti(volume())))
    ok("encode", tmp_path / "plain.nii.gz")
    assert ok("decode", tmp_path / "plain.nii.gz.codes").strip().endswith(".decoded.npy")


def test_a_clip_at_another_rate_keeps_its_time(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(written(40))
    ok("encode", tmp_path / "clip.mp4", "--fps", "5")
    assert extent(tmp_path / "clip.mp4.codes") == (8, 48, 64)
    ok("decode", tmp_path / "clip.mp4.codes", "--out", tmp_path / "back.webp")
    assert set(read_clip(tmp_path / "back.webp").durations) == {1 / read_clip(tmp_path / "back.webp").frame_rate_hz}
    assert read_clip(tmp_path / "back.webp").frame_rate_hz == 5
    (tmp_path / "a.gif").write_bytes(animation("GIF", [100] * 6))
    ok("encode", tmp_path / "a.gif")
    assert extent(tmp_path / "a.gif.codes") == (6, 48, 64)
    ok("encode", tmp_path / "a.gif", "--with", "image-patch8", "--frame", "2")
    assert extent(tmp_path / "a.gif.codes") == (48, 64)
    result = run("encode", tmp_path / "a.gif", "--with", "image-patch8")
    assert result.exit_code == 1
    assert "frame=0 for the first" in result.output


def test_a_mesh_and_a_folder_of_slices(tmp_path: Path) -> None:
    (tmp_path / "box.obj").write_bytes(obj(*box()))
    ok("encode", tmp_path / "box.obj", "--mesh-resolution", "16", "--mesh-fill", "surface")
    assert extent(tmp_path / "box.obj.codes") == (16, 16, 16)
    ok("decode", tmp_path / "box.obj.codes", "--out", tmp_path / "box.npy")
    voxels = read_volume(tmp_path / "box.npy")[0]
    assert voxels[4:12, 4:12, 4:12].mean() < 0.3 < voxels[0].mean()
    root = folder(tmp_path / "ct", [slice_of(z) for z in range(4)])
    ok("encode", root, "--out", tmp_path / "ct.codes")
    assert extent(tmp_path / "ct.codes") == (4, 5, 6)
    (tmp_path / "empty").mkdir()
    assert "is a folder" in run("encode", tmp_path / "empty").output
    assert encoded(slice_of(0))[128:132] == b"DICM"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--fps", "zero", "write a number such as 8, 29.97 or 30000/1001"),
        ("--window", "5:1", "the lower first"),
        ("--window", "ct", "LOW:HIGH"),
        ("--mesh-resolution", "0", "1<=x<=1024"),
        ("--orientation", "LPS", "'ras', 'stored'"),
        ("--limit", "max_pixels=many", "write a size such as 64M"),
    ],
)
def test_options_that_cannot_be(option: str, value: str, message: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for command in (["encode", tmp_path / "a.png"], ["count", tmp_path / "a.png"]):
        result = run(*command, option, value)
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())


def test_limits_bound_what_is_encoded_and_options_what_is_counted(tmp_path: Path) -> None:
    Image.new("RGB", (80, 80)).save(tmp_path / "a.png")
    result = run("encode", tmp_path / "a.png", "--limit", "max_pixels=100")
    assert result.exit_code == 1
    assert "the limit is max_pixels=100" in result.output
    (tmp_path / "clip.mp4").write_bytes(written(40))
    assert ok("count", tmp_path / "clip.mp4", "--fps", "5") != ok("count", tmp_path / "clip.mp4")
    ok(
        "prepare",
        tmp_path / "clip.mp4",
        "--vocab",
        "base",
        "--out",
        tmp_path / "out",
        "--executor",
        "inline",
        "--fps",
        "5",
    )
    plan = (tmp_path / "out" / "plan.json").read_text()
    assert '"fps": "5"' in plan
