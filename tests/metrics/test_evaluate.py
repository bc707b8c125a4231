"""The whole evaluation: rows that add up, failures that stop nothing, a report that opens."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import multitok
from multitok.errors import InputError, SpecError
from multitok.frontend import media
from multitok.metrics import Evaluation, Evaluator, LevelDroppable, ReportWriter, decode_prefix, evaluate, measure, psnr
from multitok.metrics.levels import level_decoders
from multitok.metrics.sheets import FULL_ERROR_SHARE, write_sheet
from multitok.protocol import Codes, Json, Modality, TokenizerBase, TokenizerSpec

DATA = Path(__file__).parent.parent.parent / "examples" / "data"


class Halves(TokenizerBase[NDArray[Any]]):
    """Pictures exact in two codebooks a value, the high half and the low half; one alone is coarse where it may be."""

    def __init__(self, *, level_droppable: bool = True, name: str = "halves") -> None:
        self.level_droppable, self._name = level_droppable, name

    @property
    def spec(self) -> TokenizerSpec:
        return TokenizerSpec(
            kind="image-halves", name=self._name, modality=Modality.IMAGE, codebook_sizes=(16, 16),
            grid_axes=("h", "w"), stride=(1, 1),
        )  # fmt: skip

    def encode(self, raw: NDArray[Any], /) -> Codes:
        grey = raw[:, :, 0]
        if grey[0, 0] == 13:
            raise InputError("13 brings bad luck: give another")
        return Codes(np.stack([grey // 16, grey % 16]).astype(np.int32), raw.shape[:2])

    def decode(self, codes: Codes, /, *, num_codebooks: int | None = None) -> NDArray[Any]:
        low = codes.values[1] if num_codebooks in (None, 2) else 8
        grey = (codes.values[0] * 16 + low).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)

    def get_config(self) -> dict[str, Json]:
        return {"name": self._name}


@cache
def raw_of(modality: str) -> NDArray[Any]:
    raw: Any = {
        "image": lambda: media.read(DATA / "photos" / "coffee.png")[60:236, 120:300],
        "video": lambda: media.read(DATA / "video" / "rabbit.webp")[:8],
        "volume": lambda: media.read(DATA / "volumes" / "brain.npy", modality=Modality.VOLUME)[:16],
    }[modality]()
    return np.ascontiguousarray(raw)


SHIPPED = {"image": "image-patch8", "video": "video-patch4x8x8", "volume": "volume-patch4"}


@cache
def shipped(modality: str) -> Evaluation:
    return evaluate(multitok.load(SHIPPED[modality]), {"it": raw_of(modality)}, name=SHIPPED[modality], runs=2)


def grey(*values: int, size: int = 8) -> NDArray[np.uint8]:
    return np.stack([np.full((size, 3), value, np.uint8) for value in values])


@pytest.mark.parametrize("modality", SHIPPED)
def test_rows_of_a_shipped_tokenizer(modality: str) -> None:
    evaluation, tokenizer, raw = shipped(modality), multitok.load(SHIPPED[modality]), raw_of(modality)
    item = evaluation.items[0]
    assert [level.num_codebooks for level in item.levels] == [1, 2, 3, 4]
    codes = tokenizer.encode(raw)
    whole = measure(raw, tokenizer.decode(codes), peak=1.0)
    assert item.levels[-1].quality == whole
    positions = math.prod(codes.grid)
    assert [level.nominal_bits for level in item.levels] == pytest.approx([10 * positions * k for k in (1, 2, 3, 4)])
    values = [level.quality.psnr_db for level in item.levels]
    assert values == sorted(values)
    for level in item.levels:
        assert 0 < level.entropy_bits < level.nominal_bits
        for peer in level.peers.values():
            assert (peer.num_bytes or 0) * 8 <= level.nominal_bits
            assert peer.quality is not None or peer.reason
    assert any(peer.quality for peer in item.levels[-1].peers.values())
    entropy = sum(use.entropy_bits for use in evaluation.codebooks) * positions
    assert item.levels[-1].entropy_bits == pytest.approx(entropy)
    assert evaluation.speed is not None
    assert evaluation.speed.encode_units_per_s > 0
    assert evaluation.unit == ("voxel" if modality == "volume" else "pixel")
    assert (item.levels[-1].quality.ms_ssim is not None) == (modality == "image")


def test_a_prefix_is_the_tokenizer_with_fewer_codebooks() -> None:
    tokenizer, raw = multitok.load("image-patch8"), raw_of("image")
    codes = tokenizer.encode(raw)
    config, tensors = tokenizer.get_config(), tokenizer.get_tensors()
    tensors["codebooks"] = tensors["codebooks"][:2048]
    short = type(tokenizer).from_state({**config, "codebook_sizes": [1024, 1024]}, tensors)
    assert np.array_equal(decode_prefix(tokenizer, codes, 2), short.decode(short.encode(raw)))
    assert np.array_equal(decode_prefix(tokenizer, codes, 4), tokenizer.decode(codes))
    for wrong in (0, 5):
        with pytest.raises(SpecError, match="'image-patch' decodes 1, 2, 3, 4"):
            decode_prefix(tokenizer, codes, wrong)


def test_a_tokenizers_own_prefix_is_used_where_it_says_so() -> None:
    raw = grey(0, 100, 255)
    assert isinstance(Halves(), LevelDroppable)
    assert decode_prefix(Halves(), Halves().encode(raw), 1)[1, 0, 0] == 104
    whole = Halves(level_droppable=False)
    assert list(level_decoders(whole)) == [2]
    with pytest.raises(SpecError, match="'image-halves' decodes 2"):
        decode_prefix(whole, whole.encode(raw), 1)
    assert not isinstance(multitok.load("text-bytes"), LevelDroppable)


def test_means_add_up_and_an_error_free_level_is_infinite() -> None:
    items = {"a": grey(8, 24), "b": grey(8, 25)}  # the first codebook alone: exact, and off by one in every second
    evaluation = evaluate(Halves(), items, peers=(), runs=0)
    first, second = (item.levels[0] for item in evaluation.items)
    assert first.quality.psnr_db == math.inf
    assert second.quality.psnr_db == pytest.approx(10 * math.log10(255**2 / 0.5))
    assert evaluation.mean[0].quality.psnr_db == math.inf
    assert evaluation.mean[0].nominal_bits_per_unit == 4
    assert evaluation.mean[1].nominal_bits_per_unit == 8
    # high halves 0 and 1, equally often: 1 bit a code; low halves 8, 8, 8, 9: entropy of (3/4, 1/4)
    assert [use.entropy_bits for use in evaluation.codebooks] == pytest.approx([1, 2 - 0.75 * math.log2(3)])
    assert [use.usage for use in evaluation.codebooks] == [2 / 16, 2 / 16]
    assert [use.num_codes for use in evaluation.codebooks] == [32, 32]
    total = sum(item.levels[1].entropy_bits for item in evaluation.items)
    assert total == pytest.approx(32 * sum(use.entropy_bits for use in evaluation.codebooks))
    assert evaluation.speed is None


def test_an_item_that_is_refused_is_listed_and_the_others_go_on() -> None:
    items = [("good", grey(1, 2)), ("bad", grey(13, 2)), ("worse", np.zeros((4, 4), np.uint8)), ("fine", grey(3))]
    tokenizer = multitok.load("image-patch8")
    evaluation = evaluate(Halves(), [items[i] for i in (0, 1, 3)], peers=["JPEG"], runs=0)
    assert [item.name for item in evaluation.items] == ["good", "fine"]
    assert [(failure.name, failure.reason) for failure in evaluation.failures] == [
        ("bad", "13 brings bad luck: give another")
    ]
    second = evaluate(tokenizer, [items[2]], runs=0)
    assert (second.items, second.mean, second.codebooks, len(second.failures)) == ((), (), (), 1)
    json.dumps(second.to_json(), allow_nan=False)


def test_a_codec_without_a_file_for_one_item_has_no_mean() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 1), np.uint8).repeat(3, axis=2)
    evaluation = evaluate(Halves(), {"large": noise, "small": grey(1)}, peers=["JPEG"], runs=0)
    large, small = (item.levels[1].peers["JPEG"] for item in evaluation.items)
    assert large.quality is not None
    assert (small.quality, "smallest file" in small.reason) == (None, True)
    assert evaluation.mean[1].peers["JPEG"] is None


def test_a_volume_is_measured_inside_the_window() -> None:
    volume = raw_of("volume").copy()
    volume[0, 0, :3] = (1.5, -0.5, 7)
    evaluation = evaluate(multitok.load("volume-patch4"), {"it": volume}, peers=(), runs=0)
    assert evaluation.items[0].clipped_share == pytest.approx(3 / volume.size)
    back = multitok.load("volume-patch4").decode(multitok.load("volume-patch4").encode(volume))
    assert evaluation.items[0].levels[-1].quality.psnr_db == psnr(np.clip(volume, 0, 1), back, peak=1.0)
    assert shipped("volume").items[0].clipped_share == 0


def test_it_is_json_that_says_all() -> None:
    data = json.loads(json.dumps(shipped("image").to_json(), allow_nan=False))
    assert data["tokenizer"] == "image-patch8"
    assert data["fingerprint"] == multitok.fingerprint(multitok.load("image-patch8"))
    assert data["mean"][3]["quality"]["psnr_db"] == shipped("image").mean[3].quality.psnr_db
    assert data["items"][0]["levels"][3]["peers"]["JPEG"]["num_bytes"] > 0
    assert data["speed"]["threads"] >= 1
    assert data["versions"]["multitok"] == multitok.__version__
    perfect = evaluate(Halves(), {"a": grey(5)}, peers=(), runs=0).to_json()
    assert json.loads(json.dumps(perfect, allow_nan=False))["mean"][1]["quality"]["psnr_db"] == "inf"


def test_threads_are_set_while_it_measures_and_set_back() -> None:
    import torch

    seen = []

    class Watching(Halves):
        def encode(self, raw: NDArray[Any], /) -> Codes:
            seen.append(torch.get_num_threads())
            return super().encode(raw)

    before = torch.get_num_threads()
    evaluation = evaluate(Watching(), {"a": grey(5)}, peers=(), runs=1, threads=before + 1)
    assert seen == [before + 1] * 2
    assert torch.get_num_threads() == before
    assert evaluation.speed is not None
    assert evaluation.speed.threads == before + 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tokenizer": "text-bytes"}, "an evaluation takes image, video, volume"),
        ({"peers": ["x264"]}, "the codecs for image are"),
        ({"runs": -1}, "at least 0 runs"),
        ({"threads": 0}, "at least 1 thread"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(arguments: dict[str, Any], words: str) -> None:
    tokenizer = multitok.load(arguments.pop("tokenizer", "image-patch8"))
    with pytest.raises(SpecError, match=words):
        Evaluator(tokenizer, **arguments)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "new"
    writer = ReportWriter(folder, max_sheets=2)
    tokenizer = multitok.load("image-patch8")
    items = {f"a/photo {i}.png": raw_of("image")[:60, i:90] for i in range(3)}
    first = Evaluator(
        tokenizer, name="runs/image | mine", runs=1, peers=["JPEG"], watch=writer.watcher("runs/image | mine")
    )
    for name, raw in items.items():
        assert first.add(name, raw) is None
    first.fail("b.png", "cut short")
    second = evaluate(Halves(), {"only": grey(40, 80)}, runs=0, peers=["JPEG"], watch=writer.watcher("halves"))
    assert writer.finish([first.result(), second]) == folder / "index.md"
    return folder


def test_a_reports_links_and_pictures_open(report: Path) -> None:
    page = (report / "index.md").read_text(encoding="utf-8")
    linked = [line.partition("](")[2].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert len(linked) == 5  # two plots, two sheets of the first tokenizer, one of the other
    for path in linked:
        with Image.open(report / path) as picture:
            picture.load()
            assert min(picture.size) > 60
    assert "Not measured: b.png: cut short" in page
    assert "no JPEG: its smallest file has" in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert all(line.count("|") - 2 * line.count("\\|") > 5 for line in tables)
    data = json.loads((report / "evaluation.json").read_text(encoding="utf-8"))
    assert [one["tokenizer"] for one in data] == ["runs/image | mine", "halves"]


def test_a_sheet_holds_the_pixels_themselves(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (200, 180, 3), np.uint8)
    off = raw.copy()
    off[50, 60] = np.where(off[50, 60] < 128, off[50, 60] + 100, off[50, 60] - 100)
    write_sheet(tmp_path / "a.png", raw, {1: off, 2: raw})
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    cells = {column: sheet[20:220, 8 + column * 188 : 188 + column * 188] for column in range(3)}
    errors = {column: sheet[248:448, 8 + column * 188 : 188 + column * 188] for column in (1, 2)}
    assert np.array_equal(cells[0], raw)
    assert np.array_equal(cells[1], off)
    assert (errors[1] > 0).any(axis=2).sum() == 1
    assert errors[1][50, 60].tolist() == [255, 255, 255]
    assert not errors[2].any()
    assert FULL_ERROR_SHARE * 255 == 32


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 1, 3), np.uint8), ((700, 500, 3), np.uint8), ((3, 40, 30, 3), np.uint8), ((5, 6, 7), np.float32)],
)
def test_a_sheet_can_be_made_of_any_item(tmp_path: Path, shape: tuple[int, ...], dtype: type[Any]) -> None:
    raw = np.zeros(shape, dtype)
    write_sheet(tmp_path / "a.png", raw, {4: raw}, peak=255.0 if dtype is np.uint8 else 1.0)
    with Image.open(tmp_path / "a.png") as picture:
        picture.load()


def test_a_report_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    for taken in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(InputError, match="holds something"):
            ReportWriter(taken)


def test_a_watcher_sees_what_was_measured() -> None:
    seen: list[tuple[str, list[int], tuple[float, float]]] = []

    def watch(name: str, raw: NDArray[Any], decoded: Mapping[int, NDArray[Any]], span: tuple[float, float]) -> None:
        seen.append((name, list(decoded), span))

    evaluate(Halves(), {"a": grey(5)}, peers=(), runs=0, watch=watch)
    evaluate(multitok.load("volume-patch4"), {"b": raw_of("volume")[:4]}, peers=(), runs=0, watch=watch)
    assert seen == [("a", [1, 2], (0.0, 255.0)), ("b", [1, 2, 3, 4], (0.0, 1.0))]
