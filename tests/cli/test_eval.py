"""`multitok eval`: tables, JSON, a report; one bad file does not stop the others."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import multitok
from multitok.cli import cli, main

DATA = Path(__file__).parent.parent.parent / "examples" / "data"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["eval", *map(str, arguments)], catch_exceptions=False)


def ok(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_picture_gets_its_rows_beside_jpeg(tmp_path: Path) -> None:
    report, found = tmp_path / "report", tmp_path / "found.json"
    photo = DATA / "photos" / "cat.png"
    options = ("--peers", "JPEG,WebP", "--runs", "1", "--json", found, "--report", report)
    output = ok("image", "image-patch8", photo, *options)
    lines = output.splitlines()
    assert lines[0] == "image-patch8 (image-patch)"
    assert lines[1].split() == ["item", "codebooks", "bits/pixel", "entropy", "PSNR", "SSIM", "MS-SSIM", "JPEG", "WebP"]
    assert [line.split()[:2] for line in lines[2:10]] == [
        [name, str(k)] for name in ("cat.png", "mean") for k in (1, 2, 3, 4)
    ]
    assert any(line.startswith("encode ") and "MPx/s" in line for line in lines)
    (data,) = json.loads(found.read_text(encoding="utf-8"))
    level = data["items"][0]["levels"][3]
    assert f"{level['quality']['psnr_db']:.2f}" == lines[5].split()[4]
    assert level["peers"]["JPEG"]["num_bytes"] * 8 <= level["nominal_bits"]
    assert (report / "index.md").is_file()
    assert lines[-1] == f"report: {report / 'index.md'}"


@pytest.mark.parametrize(
    ("modality", "checkpoint", "folder", "unit"),
    [("video", "video-patch4x8x8", "video", "pixel"), ("volume", "volume-patch4", "volumes", "voxel")],
)
def test_folders_and_json_on_standard_output(modality: str, checkpoint: str, folder: str, unit: str) -> None:
    data = json.loads(ok(modality, checkpoint, DATA / folder, "--peers", "none", "--runs", "0", "--json", "-"))
    assert [(one["tokenizer"], one["unit"], len(one["items"])) for one in data] == [(checkpoint, unit, 1)]
    assert data[0]["speed"] is None


def test_several_tokenizers_share_the_files(tmp_path: Path) -> None:
    tokenizer = multitok.load("image-patch8")
    mine = multitok.save(tokenizer, tmp_path / "mine", card="mine")
    data = json.loads(
        ok("image", "image-patch8", mine, DATA / "photos" / "cat.png", "--peers", "JPEG", "--runs", "0", "--json", "-")
    )
    assert [one["tokenizer"] for one in data] == ["image-patch8", str(mine)]
    assert data[0]["items"] == data[1]["items"]


def test_a_file_that_cannot_be_read_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    shutil.copy(DATA / "photos" / "cat.png", tmp_path / "b.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "b.png").read_bytes()[:5000])
    (tmp_path / "notes.txt").write_text("no picture")
    result = run(
        "image", "image-patch8", tmp_path, tmp_path / "absent.png", "--peers", "none", "--runs", "0", "--json", "-"
    )
    assert result.exit_code == 1
    (data,) = json.loads(result.stdout)
    assert [item["name"] for item in data["items"]] == ["b.png"]
    assert [failure["name"] for failure in data["failures"]] == ["a.png", "absent.png"]
    assert "2 of 3 files could not be measured" in result.stderr
    assert "a.png" in result.stderr
    assert "No such file" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("image", DATA / "photos"), "no checkpoint given: name one before the files, such as image-f16, image-f8"),
        (("image", "volume-patch4", DATA / "photos"), "volume-patch4 is a tokenizer for volume: give one for image"),
        (("image", "image-patch8"), "give files or folders after the checkpoints"),
        (("image", "image-patch8", DATA / "sounds"), "no image files in"),
        (("image", "image-patch8", DATA / "photos", "--json", "no/such/a.json"), "there is no such folder"),
        (("image", "--published", "vqgan", DATA / "photos"), "write KIND=PATH"),
    ],
)
def test_mistakes_say_what_to_give(arguments: tuple[str | Path, ...], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("image", "image-patch9", DATA / "photos"), "no checkpoint 'image-patch9'"),
        (("image", "image-patch8", DATA / "photos", "--peers", "x264"), "the codecs for image are JPEG"),
        (("image", "image-patch8", DATA / "photos", "--report", DATA), "holds something"),
    ],
)
def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str | Path, ...], words: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["multitok", "eval", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
