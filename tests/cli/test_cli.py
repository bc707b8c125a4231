"""The command line: what a user types, what comes back, and what a mistake says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from multitok.cli import COMMANDS, cli, main
from multitok.frontend import media

DATA = Path(__file__).parent.parent.parent / "examples" / "data"


def run(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin, catch_exceptions=False)


def ok(*arguments: str | Path, stdin: str | None = None) -> str:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.output


def failing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What `main` prints to stderr for a command that must exit with status 1 and no traceback."""
    monkeypatch.setattr(sys, "argv", ["multitok", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_help_and_its_line(name: str) -> None:
    assert "Usage:" in ok(name, "--help")
    assert re.search(rf"^  {name} ", ok("--help"), re.MULTILINE)


def test_an_unknown_command_is_refused_with_a_hint() -> None:
    result = run("encodee")
    assert result.exit_code == 2
    assert "No such command 'encodee'" in result.output


def test_list_shows_every_checkpoint_also_as_json() -> None:
    from multitok.checkpoint import shipped_checkpoints

    data = json.loads(ok("list", "--json"))
    assert set(data["checkpoints"]) == set(shipped_checkpoints())
    assert all(name in ok("list") for name in data["checkpoints"])


def test_doctor_finds_this_installation_sound() -> None:
    findings = json.loads(ok("doctor", "--json"))
    assert not [finding for finding in findings if finding["state"] == "broken"]
    assert all(
        finding["fix"] for finding in findings if finding["section"] == "Extras" and finding["state"] == "absent"
    )
    assert "pip install 'multitok[ray]'" in ok("doctor") or "ray" in json.dumps(findings)


@pytest.mark.parametrize(
    ("name", "back"),
    [
        ("text/world.txt", "back.txt"),
        ("sequences/worm.fa", "back.fa"),
        ("photos/cat.png", "back.png"),
        ("series/walking.csv", "back.csv"),
        ("volumes/brain.npy", "back.npy"),
        ("video/rabbit.webp", "back.webp"),
    ],
)
def test_a_file_goes_to_codes_and_back(tmp_path: Path, name: str, back: str) -> None:
    codes = tmp_path / "x.codes"
    ok("encode", DATA / name, "--out", codes)
    ok("decode", codes, "--out", tmp_path / back)
    before, after = media.read(DATA / name), media.read(tmp_path / back)
    if isinstance(before, str):
        assert before == after
    else:
        assert (before.shape, before.dtype) == (after.shape, after.dtype)


def test_records_go_to_codes_and_back(tmp_path: Path) -> None:
    source = DATA / "sequences" / "proteins.faa"
    ok("encode", source, "--out", tmp_path / "p.codes")
    written = ok("decode", tmp_path / "p.codes", "--out", tmp_path / "back").split()
    back = [next(iter(media.records(Path(path)))) for path in written]
    assert back == list(media.records(source))


@pytest.mark.parametrize(
    ("letters", "expected"),
    [
        (">NM_000207.3 insulin\nACGT\n", ["genes.fa.decoded.fasta"]),
        (">NM_000207.3\nACGT\n>../x\nGG\n", ["0-NM_000207.3.fasta", "1-_x.fasta"]),
    ],
)
def test_ids_with_dots_and_slashes_are_no_endings_or_folders(tmp_path: Path, letters: str, expected: list[str]) -> None:
    source = tmp_path / "genes.fa"
    source.write_text(letters)
    ok("encode", source)
    written = [Path(line) for line in ok("decode", f"{source}.codes").splitlines()]
    assert [path.name for path in written] == expected
    assert all(path.parent in (tmp_path, tmp_path / "genes.fa.decoded") for path in written)
    assert [next(iter(media.records(path))) for path in written] == list(media.records(source))


@pytest.mark.parametrize("name", ["photos/cat.png", "text/world.txt", "volumes/brain.npy"])
def test_decode_names_the_file_where_no_name_is_given(tmp_path: Path, name: str) -> None:
    codes = tmp_path / f"{Path(name).name}.codes"
    ok("encode", DATA / name, "--out", codes)
    written = Path(ok("decode", codes).strip())
    assert written == tmp_path / f"{Path(name).name}.decoded{Path(name).suffix}"
    assert written.is_file()


def test_encode_goes_on_after_an_input_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "zero.png").touch()
    (tmp_path / "a.txt").write_text("abc")
    result = run("encode", tmp_path / "zero.png", tmp_path / "absent.txt", tmp_path, tmp_path / "a.txt")
    assert result.exit_code == 1
    assert (tmp_path / "a.txt.codes").is_file()
    for words in ("zero.png: the file is empty", "absent.txt: No such file", "is a folder: give its files", "3 of 4"):
        assert words in result.output


def test_a_picture_may_come_by_standard_input(tmp_path: Path) -> None:
    photo = (DATA / "photos" / "cat.png").read_bytes()
    result = CliRunner().invoke(cli, ["encode", "-", "--out", str(tmp_path / "x.codes")], input=photo)
    assert result.exit_code == 0, result.output
    assert "image-patch8" in result.output


def test_standard_input_and_printed_codes() -> None:
    line = json.loads(ok("encode", "-", "--print", "--with", "text-bytes", stdin="hé"))
    assert line == {"id": "", "codes": [[104, 195, 169]], "extent": [3]}
    assert run("encode", "-", stdin="x").exit_code == 2


def test_count_equals_what_prepare_writes(tmp_path: Path) -> None:
    folders = [DATA / name for name in ("photos", "sounds", "volumes", "series", "sequences", "text", "video")]
    counted = json.loads(ok("count", *folders, "--json"))
    ok("prepare", *folders, "--vocab", "base", "--out", tmp_path / "out", "--workers", "1")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert counted["problems"] == []
    assert counted["tokens"] == sum(shard["num_tokens"] for shard in manifest["shards"])


def test_count_tells_what_it_leaves_out_and_refuses(tmp_path: Path) -> None:
    lines = ['{"text": "good"}', '{"id": "named", "text": ""}', *["[]"] * 25]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.jsonl").touch()
    (tmp_path / "folder" / "genes.fa").write_text(">one\nACGT\n>two\nA*\n")
    output = ok("count", tmp_path / "folder", tmp_path / "a.jsonl")
    assert "2 documents, 12 tokens" in output
    assert "left out: 1 x .jsonl (give it as a source of its own)" in output
    assert "not counted: a.jsonl:45: a document is a JSON object, this line is a list" in output
    assert "not counted: a.jsonl: named (byte 17): the text is empty" in output
    assert "not counted: folder/genes.fa#two: character '*'" in output
    assert output.count("not counted: ") == 21
    assert "not counted: 7 more items" in output


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"])
@pytest.mark.parametrize("command", [("count",), ("prepare", "--vocab", "base", "--out", "never-written")])
def test_a_template_that_is_no_json_is_refused(tmp_path: Path, content: bytes, command: tuple[str, ...]) -> None:
    (tmp_path / "template.json").write_bytes(content)
    result = run(*command, DATA / "text", "--template", tmp_path / "template.json")
    assert result.exit_code == 2
    assert "is no JSON" in result.output


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--error-budget", "nan", "write a share"),
        ("--error-budget", "inf", "write a share"),
        ("--limit", "max_bytes", "write NAME=SIZE, such as max_bytes=64M"),
        ("--limit", "bytes=3", "the limits are max_bytes"),
        ("--use", "dna", "write MODALITY=TOKENIZER"),
    ],
)
def test_options_of_prepare_say_what_they_take(option: str, value: str, message: str) -> None:
    result = run("prepare", DATA / "text", "--vocab", "base", "--out", "never-written", option, value)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_prepare_status_verify_inspect_decode(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "documents" in ok("prepare", DATA / "documents.jsonl", "--vocab", "base", "--out", out, "--workers", "1")
    assert "done" in ok("status", out)
    ok("verify", out)
    assert "image" in ok("inspect", out)
    assert "raster" in ok("inspect", out, "--document", "1")
    written = ok("decode", out, "--document", "1", "--out", tmp_path / "document").split()
    assert [Path(path).name for path in written] == ["0-image.png", "1-text.txt", "2-audio.wav"]


def test_vocab_builds_extends_and_is_shown(tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    ok("vocab", "text-bytes", "photos=image-patch8", "--out", first)
    ok("vocab", "dna-6mer", "--extend", first, "--out", second)
    assert "photos" in ok("inspect", first)
    assert "dna" in ok("inspect", second)
    assert json.loads(second.read_text())["vocab_size"] > json.loads(first.read_text())["vocab_size"]
    assert run("vocab", "--out", first).exit_code == 2


@pytest.mark.parametrize("target", ["image-patch8", "base"])
def test_inspect_shows_shipped_things(target: str) -> None:
    assert "fingerprint" in ok("inspect", target)


def test_mistakes_are_one_line_without_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    codes = tmp_path / "a.codes"
    ok("encode", DATA / "text" / "world.txt", "--out", codes)
    broken.write_bytes((DATA / "photos" / "cat.png").read_bytes()[:5000])
    for arguments, words in [
        (("encode", broken), "broken.png"),
        (("encode", tmp_path / "absent.png"), "No such file"),
        (("encode", DATA / "photos" / "cat.png", "--with", "nope"), "no checkpoint 'nope'"),
        (("decode", DATA / "photos" / "cat.png"), "is not a codes file"),
        (("prepare", DATA / "photos", "--vocab", "nope.json", "--out", tmp_path / "o"), "nope.json"),
        (("status", tmp_path), str(tmp_path)),
        (("decode", tmp_path), "manifest.json is missing"),
        (("decode", codes, "--out", tmp_path / "no" / "a.txt"), f"{tmp_path / 'no'}: there is no such folder"),
        (("vocab", "text-bytes", "--out", tmp_path), f"{tmp_path}: Is a directory"),
        (("vocab", "text-bytes", "bytes=text-bytes", "--out", tmp_path / "v"), "by NAME=CHECKPOINT"),
    ]:
        message = failing(monkeypatch, capsys, *arguments)
        assert message.startswith("multitok: ")
        assert words in message
        assert "Traceback" not in message


@pytest.mark.parametrize("arguments", [("inspect", "base"), ("decode", DATA / "documents.jsonl")])
def test_a_document_is_asked_of_prepared_folders_only(arguments: tuple[str | Path, ...]) -> None:
    result = run(*arguments, "--document", "0")
    assert result.exit_code == 2
    assert "--document is for" in result.output


def test_tables_in_a_pipe_are_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 50) / "vocabulary.json"
    path.parent.mkdir()
    output = ok("vocab", "bytes=text-bytes", "--out", path)
    assert output.splitlines()[0] == f"{path}: 384 IDs"
    assert all(line == line.rstrip() for line in output.splitlines())


def test_train_bpe_then_use_it(tmp_path: Path) -> None:
    out = tmp_path / "my-bpe"
    ok("train", "bpe", DATA / "text", "--vocab-size", "400", "--out", out)
    ok("encode", DATA / "text" / "world.txt", "--with", out, "--out", tmp_path / "w.codes")
    ok("decode", tmp_path / "w.codes", "--out", tmp_path / "w.txt")
    assert (tmp_path / "w.txt").read_bytes() == (DATA / "text" / "world.txt").read_bytes()
    assert "## Training" in (out / "card.md").read_text()


def test_train_image_patch_then_use_it(tmp_path: Path) -> None:
    out = tmp_path / "my-image"
    options = ("--codebooks", "2", "--codebook-size", "16", "--patch", "8,8", "--latent-dim", "12")
    ok("train", "image-patch", DATA / "photos", *options, "--max-patches", "2000", "--out", out)
    ok("encode", DATA / "photos" / "cat.png", "--with", out, "--out", tmp_path / "c.codes")
    ok("decode", tmp_path / "c.codes", "--out", tmp_path / "c.png")
    assert media.read(tmp_path / "c.png").shape == media.read(DATA / "photos" / "cat.png").shape


def test_train_leaves_out_what_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.txt").write_bytes(b"caf\xe9")
    (tmp_path / "in" / "good.txt").write_text("the cat and the hat and the bat " * 20)
    (tmp_path / "in" / "zero.png").touch()
    (tmp_path / "in" / "cat.png").write_bytes((DATA / "photos" / "cat.png").read_bytes())
    output = ok("train", "bpe", tmp_path / "in", "--vocab-size", "260", "--out", tmp_path / "bpe")
    assert "left out" in output
    assert "bad.txt: not UTF-8" in output
    assert "1 file, `good.txt`" in (tmp_path / "bpe" / "card.md").read_text()
    options = ("--codebooks", "1", "--codebook-size", "4", "--latent-dim", "4", "--max-patches", "200")
    output = ok("train", "image-patch", tmp_path / "in", *options, "--out", tmp_path / "image")
    assert "zero.png: the file is empty" in output


def test_train_refuses_a_folder_that_exists_before_it_reads(tmp_path: Path) -> None:
    result = run("train", "bpe", DATA / "text", "--out", tmp_path)
    assert result.exit_code == 2
    assert "exists already" in result.output


@pytest.mark.parametrize("module", ["torch", "numba", "pyarrow", "tokenizers", "PIL", "rich"])
def test_help_loads_no_framework(module: str) -> None:
    code = f"""
import sys
from multitok.cli import cli
cli.main(["--help"], standalone_mode=False)
print({module!r} in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.endswith("False\n")
