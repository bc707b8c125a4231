"""Every kind of source: what becomes a document, in which order, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.errors import JobError
from multitok.prepare.routing import Routing
from multitok.prepare.sources import Findings, Item, Rejected, open_sources
from multitok.protocol import Modality
from tests.prepare.corpus import png, write_jsonl, write_tar

ROUTING = Routing(
    {"text": Modality.TEXT, "image": Modality.IMAGE, "dna": Modality.SEQUENCE, "series": Modality.SERIES}, {}
)


def items(path: Path, slice_bytes: int = 2**20, routing: Routing = ROUTING, **options: Any) -> list[Item | Rejected]:
    """All items of a source, read slice by slice."""
    (source,) = open_sources([path], routing, **{"group_by_stem": False, **options})
    findings, listing = Findings(), path.parent / f"{path.name}.listing"
    slices = list(source.plan(slice_bytes, listing, findings))
    return [item for part in slices for item in source.read(part, listing, frozenset(findings.notes))]


def skipped(path: Path, routing: Routing = ROUTING) -> dict[str, int]:
    (source,) = open_sources([path], routing, group_by_stem=False)
    findings = Findings()
    list(source.plan(2**20, path.parent / "listing", findings))
    return dict(findings.skipped)


def parts(item: Item | Rejected) -> list[tuple[str | None, Any]]:
    assert isinstance(item, Item), item
    return [(part.tokenizer, part.content) for part in item.parts]


def reason(item: Item | Rejected) -> str:
    assert isinstance(item, Rejected), item
    return item.message


# ---- folders


def test_folder_takes_files_in_path_order_and_reports_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "data"
    names = ["b/z.txt", "a-1.txt", "a/x.png", "a.txt", "ab.txt", ".hidden.txt", ".git/x.txt", "raw.xyz", "docs.jsonl"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "link.txt").symlink_to(root / "a.txt")
    (root / "loop").symlink_to(root)
    (root / "gone.txt").symlink_to(root / "nothing.txt")
    found = [item.id for item in items(root)]
    assert found == [
        f"data/{name}" for name in sorted(["a-1.txt", "a.txt", "a/x.png", "ab.txt", "b/z.txt", "link.txt"])
    ]
    assert skipped(root) == {
        ".xyz (unknown)": 1,
        ".jsonl (give it as a source of its own)": 1,
        "links to folders": 1,
        "broken links and special files": 1,
    }


@given(st.sets(st.text("ab-./ é", min_size=1, max_size=6).map(lambda s: s.strip("/. ")).filter(bool), max_size=8))
@settings(max_examples=60, deadline=None)
def test_folder_order_is_that_of_the_full_paths(tmp_path_factory: pytest.TempPathFactory, stems: set[str]) -> None:
    root = tmp_path_factory.mktemp("walk") / "data"
    root.mkdir()
    written = set()
    for stem in stems:
        path = root / f"{stem}.txt"
        if not any(part.startswith(".") or not part for part in f"{stem}.txt".split("/")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
            written.add(path.relative_to(root).as_posix())
    assert [item.place for item in items(root, slice_bytes=1)] == sorted(written)


def test_folder_files_of_one_stem_are_one_document_text_first(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ["a.png", "a.txt", "b.png", "sub/a.txt", "a.b.txt", "v.csv", "v.txt.gz"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    found = {item.id: [part.name for part in item.parts] for item in items(root, group_by_stem=True)}  # type: ignore[union-attr]
    assert found == {
        "data/a": ["a.txt", "a.png"],
        "data/a.b": ["a.b.txt"],
        "data/b": ["b.png"],
        "data/sub/a": ["sub/a.txt"],
        "data/v": ["v.txt.gz", "v.csv"],
    }


def test_folder_leaves_out_modalities_without_a_tokenizer(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for name in ["a.txt", "b.wav", "c.mp4", "d.npy"]:
        (root / name).write_bytes(b"x")
    assert [item.place for item in items(root)] == ["a.txt", "d.npy"]
    assert skipped(root) == {".wav (no audio tokenizer)": 1, ".mp4 (no video tokenizer)": 1}


def test_a_single_file_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png(1))
    (item,) = items(tmp_path / "photo.png")
    assert (item.id, item.place) == ("photo.png/photo.png", "photo.png")


# ---- JSONL


def test_jsonl_reads_both_forms_in_order(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "docs.jsonl",
        [
            {"id": "a", "segments": [{"text": "one"}, {"image": "i/1.png"}, {"dna": "ACGT"}, {"text": "two"}]},
            {"image": "2.png", "text": "späť", "url": "ignored", "series": None},
            b"",
            {"id": 7, "text": "x"},
        ],
    )
    first, second, third = items(path)
    assert (first.id, second.id, third.id) == ("a", f"docs.jsonl:{len(path.read_bytes().splitlines()[0]) + 1}", "7")
    assert parts(first) == [("text", "one"), ("image", tmp_path / "i/1.png"), ("dna", "ACGT"), ("text", "two")]
    assert parts(second) == [("image", tmp_path / "2.png"), ("text", "späť")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "cut', "not a line of JSON: Unterminated string starting at"),
        (b'{"text": "\xff"}', "not a line of JSON: 'utf-8' codec can't decode byte 0xff"),
        (b"[1, 2]", "a document is a JSON object, this line is a list"),
        (b'{"txt": "x"}', "none of the keys that mean a segment; its keys are txt"),
        (b'{"segments": []}', "segments is a list: give a list of at least one object"),
        (b'{"segments": ["x"]}', "segment 0 is a string"),
        (b'{"segments": [{"text": "x", "image": "y"}]}', "segment 0 has the keys text, image: give exactly one"),
        (b'{"text": 5}', "text is a number: give a string"),
        (b'{"text": "\\ud800"}', "text holds half of a surrogate pair"),
        (b'{"image": "../secret.png"}', "path '../secret.png': give a path relative to"),
        (b'{"image": "/etc/x.png"}', "path '/etc/x.png': give a path relative to"),
        (b'{"image": ""}', "path '': give a path relative to"),
        (b'{"audio": "a.wav"}', "the vocabulary has no tokenizer for audio"),
    ],
)
def test_jsonl_refuses_a_bad_line_and_goes_on(tmp_path: Path, line: bytes, message: str) -> None:
    first, second = items(write_jsonl(tmp_path / "docs.jsonl", [line, {"text": "good"}]))
    assert message in reason(first)
    assert (first.source, first.place) == ("docs.jsonl", "byte 0")
    assert parts(second) == [("text", "good")]


@given(
    lines=st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\r"), max_size=30)),
    slice_bytes=st.integers(1, 80),
    ends=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_jsonl_slices_cut_between_lines_only(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], slice_bytes: int, ends: bool
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "docs.jsonl"
    data = "\n".join(json.dumps({"text": line}, ensure_ascii=False) for line in lines) + "\n" * ends
    path.write_bytes(data.encode())
    assert [part[0][1] for part in map(parts, items(path, slice_bytes))] == lines


def test_jsonl_slices_count_the_media_they_refer_to(tmp_path: Path) -> None:
    (tmp_path / "big.png").write_bytes(b"x" * 100_000)
    path = write_jsonl(tmp_path / "docs.jsonl", [{"image": "big.png"}] * 40)
    (source,) = open_sources([path], ROUTING, group_by_stem=False)
    slices = list(source.plan(1_000_000, tmp_path / "listing", Findings()))
    assert 4 <= len(slices) <= 6
    assert sum(part.num_bytes for part in slices) == pytest.approx(40 * 104_096, rel=0.02)


# ---- Parquet


def _table(path: Path, columns: dict[str, Any], row_group_size: int = 4) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def test_parquet_takes_columns_as_segments_in_order(tmp_path: Path) -> None:
    image = png(1)
    path = _table(
        tmp_path / "docs.parquet",
        {
            "image": [{"bytes": image, "path": "a.png"}, None, {"bytes": None, "path": "b.png"}],
            "id": ["x", None, "z"],
            "text": ["one", "two", None],
            "score": [1.0, 2.0, 3.0],
        },
    )
    first, second, third = items(path)
    assert [item.id for item in (first, second, third)] == ["x", "docs.parquet:1", "z"]
    assert parts(first) == [("image", image), ("text", "one")]
    assert parts(second) == [("text", "two")]
    assert parts(third) == [("image", tmp_path / "b.png")]
    assert skipped(path) == {"column 'score' (no modality or tokenizer)": 1}


def test_parquet_takes_binary_and_paths(tmp_path: Path) -> None:
    image = png(2)
    path = _table(tmp_path / "a.parquet", {"image": [image], "text": [b"caf\xc3\xa9"]})
    assert parts(items(path)[0]) == [("image", image), ("text", "café")]
    path = _table(tmp_path / "b.parquet", {"image": ["sub/1.png", "../1.png"]})
    first, second = items(path)
    assert parts(first) == [("image", tmp_path / "sub/1.png")]
    assert "give a path relative to" in reason(second)


def test_parquet_quarantines_single_rows(tmp_path: Path) -> None:
    path = _table(tmp_path / "a.parquet", {"text": pa.array([b"good", b"\xff\xfe", None, b"too"], pa.binary())})
    first, second, third, fourth = items(path)
    assert parts(first) == [("text", "good")]
    assert "invalid start byte" in reason(second)
    assert "every segment of the row is null" in reason(third)
    assert (third.place, fourth.id) == ("row 2", "a.parquet:3")


@pytest.mark.parametrize("slice_bytes", [1, 100, 1000, 10**6])
def test_parquet_slices_cover_all_rows_once(tmp_path: Path, slice_bytes: int) -> None:
    texts = [f"row {i} " * 20 for i in range(300)]
    path = _table(tmp_path / "a.parquet", {"text": texts}, row_group_size=130)
    assert [parts(item)[0][1] for item in items(path, slice_bytes)] == texts


def test_parquet_without_known_columns_is_refused(tmp_path: Path) -> None:
    path = _table(tmp_path / "a.parquet", {"caption": ["x"]})
    with pytest.raises(JobError, match=r"no column is named like a modality or a tokenizer \(caption\)"):
        items(path)
    path = _table(tmp_path / "b.parquet", {"image": [[1, 2]]})
    with pytest.raises(JobError, match="column 'image' is list"):
        items(path)
    path = _table(tmp_path / "c.parquet", {"audio": ["x.wav"]})
    with pytest.raises(JobError, match="column 'audio': the vocabulary has no tokenizer for audio"):
        items(path)
    (tmp_path / "d.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(JobError, match="cannot be read as Parquet"):
        items(tmp_path / "d.parquet")


# ---- WebDataset


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("slice_bytes", [1, 3000, 10**6])
def test_tar_groups_members_by_key(tmp_path: Path, format: int, slice_bytes: int) -> None:
    long = "a-rather-long-folder-name/" * (3 if format == tarfile.USTAR_FORMAT else 9)
    members = [
        ("./000.png", b"image 0"),
        ("./000.txt", b"text 0"),
        ("001.left.png", b"left"),
        ("001.right.png", b"right"),
        ("001.json", b"{}"),
        ("001.cls", b"7"),
        ("._001.png", b"resource fork"),
        (f"{long}002.txt", "text é".encode()),
        ("é/003.txt", b"x" * 5000),
    ]
    found = items(write_tar(tmp_path / "a.tar", members, format), slice_bytes)
    assert [(item.id, [part.content for part in item.parts]) for item in found] == [  # type: ignore[union-attr]
        ("a.tar/000", [b"text 0", b"image 0"]),
        ("a.tar/001", [b"left", b"right"]),
        (f"a.tar/{long}002", ["text é".encode()]),
        ("a.tar/é/003", [b"x" * 5000]),
    ]
    assert skipped(tmp_path / "a.tar") == {".json (WebDataset metadata)": 1, ".cls (unknown)": 1}


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt"])
def test_tar_members_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    path = write_tar(tmp_path / "a.tar", [("0.txt", b"good"), (name, b"bad"), ("1.txt", b"good")])
    first, second, third = items(path)
    assert (parts(first), parts(third)) == ([(None, b"good")], [(None, b"good")])
    assert reason(second) == f"member name {name!r} leaves the tar's folder"


def test_tar_links_doubles_and_scattered_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name in ["0.txt", "1.txt", "1.txt", "2.txt", "3.txt", "2.png", "4.cls"]:
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
        link = tarfile.TarInfo("5.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    found = {f"{item.id} {item.place}": item for item in items(path, slice_bytes=1)}
    messages = [reason(item) for item in found.values() if isinstance(item, Rejected)]
    assert [item.id for item in found.values() if isinstance(item, Item)] == ["a.tar/0", "a.tar/3"]
    assert messages == [
        "two members are named '1.txt'",
        "the sample's members lie apart in the tar: pack it again in order, with `tar --sort=name`",
        "the sample's members lie apart in the tar: pack it again in order, with `tar --sort=name`",
        "no member has a known ending (4.cls)",
        "member '5.txt' is a link, a device or sparse: only plain files are read",
    ]


def test_tar_damage_is_told_and_what_came_before_is_kept(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", [(f"{i}.txt", b"x" * 600) for i in range(4)]).read_bytes()
    step = 512 + 1024
    cases = {
        "inside.tar": (whole[: 3 * step + 700], 3, "the tar is cut short inside this member"),
        "header.tar": (whole[: 3 * step + 100], 3, "the tar ends without its end marker: it is cut short"),
        "between.tar": (whole[: 3 * step], 3, "the tar ends without its end marker: it is cut short"),
        "flipped.tar": (whole[:step] + b"\xff" + whole[step + 1 :], 1, "the rest of the tar"),
        "empty.tar": (b"", 0, "the tar ends without its end marker: it is cut short"),
    }
    for name, (data, num_good, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        for slice_bytes in (1, 10**6):
            found = items(tmp_path / name, slice_bytes)
            assert [type(item) for item in found] == [Item] * num_good + [Rejected], name
            assert message in reason(found[-1]), name


# ---- all kinds


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "does not exist"),
        ("a.tar.gz", "compressed as a whole.*unpack it first"),
        ("a.jsonl.zst", "compressed as a whole"),
        ("a.tgz", "compressed as a whole"),
        ("a.xyz", r"give a folder, .jsonl, .ndjson, .parquet, .tar or one media file; .xyz \(unknown\)"),
    ],
)
def test_sources_that_cannot_be_read_say_what_to_do(tmp_path: Path, name: str, message: str) -> None:
    if name != "missing":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(JobError, match=message):
        open_sources([tmp_path / name], ROUTING, group_by_stem=False)


def test_sources_of_one_name_get_two_labels(tmp_path: Path) -> None:
    for side in ("train", "test"):
        (tmp_path / side / "images").mkdir(parents=True)
    paths = [tmp_path / side / "images" for side in ("train", "test")]
    assert [source.label for source in open_sources(paths, ROUTING, group_by_stem=False)] == ["images", "images#2"]


# ---- routing


def test_routing_needs_a_choice_only_where_several_could_take_it() -> None:
    two = {"fine": Modality.SERIES, "coarse": Modality.SERIES, "text": Modality.TEXT, "bytes": Modality.TEXT}
    routing = Routing(two, {})
    assert (routing.of_key("text"), routing.of_key("bytes"), routing.of_key("coarse")) == ("text", "bytes", "coarse")
    with pytest.raises(JobError, match=r"2 tokenizers of the vocabulary take series \(fine, coarse\): say which"):
        routing.takes_file("x.csv")
    chosen = Routing(two, {"series": "fine", ".tsv": "coarse"})
    assert chosen.of_content("x.csv", Modality.SERIES) == "fine"
    assert chosen.of_content("x.tsv", Modality.SERIES) == "coarse"


def test_routing_sends_sequences_to_dna_and_faa_to_protein_unless_told() -> None:
    both = {"dna": Modality.SEQUENCE, "protein": Modality.SEQUENCE}
    names = ("x.fa", "x.faa")
    assert [Routing(both, {}).of_content(name, Modality.SEQUENCE) for name in names] == ["dna", "protein"]
    told = Routing(both, {"sequence": "protein", ".faa": "dna"})
    assert [told.of_content(name, Modality.SEQUENCE) for name in names] == ["protein", "dna"]
    # Only names of sequence tokenizers have that meaning.
    assert Routing({"dna": Modality.TEXT}, {}).of_content("x.txt", Modality.TEXT) == "dna"


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ({"text": "speech"}, "the vocabulary's tokenizers are text, image"),
        ({"pictures": "image"}, "give a modality"),
        ({".xyz": "image"}, "give a modality"),
        ({"text": "image"}, "text holds text, but 'image' takes image"),
    ],
)
def test_routing_refuses_a_choice_that_cannot_be(use: dict[str, str], message: str) -> None:
    with pytest.raises(JobError, match=message):
        Routing({"text": Modality.TEXT, "image": Modality.IMAGE}, use)
