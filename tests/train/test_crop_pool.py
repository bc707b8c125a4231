"""The stream of training crops: a function of seed, step and rank; bounded; and patient with broken files."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from multitok.errors import InputError
from multitok.prepare.training_items import open_items
from multitok.protocol import Modality
from multitok.train.crop_pool import BadItem, CropPool
from multitok.train.crops import CropReader, Shelf, turned
from multitok.train.items import FileItems, Items
from multitok.train.presets import DEFAULT_PRESETS, PRESETS, Preset, preset
from tests.train.autoencoder_runs import TINY, write_pictures

DATA = Path(__file__).parent.parent.parent / "examples" / "data"
IMAGE = TINY[Modality.IMAGE]


def pool(items: Items, of: Preset = IMAGE, *, batch: int = 4, seed: int = 0, **more: int) -> CropPool:
    return CropPool(items, of, batch=batch, seed=seed, **more)


def flat_pictures(folder: Path, count: int, side: int = 24) -> FileItems:
    """Picture i has value i everywhere."""
    folder.mkdir()
    for index in range(count):
        Image.new("RGB", (side, side), (index,) * 3).save(folder / f"{index:02d}.png")
    return FileItems([folder], Modality.IMAGE)


def sources(batch: NDArray[np.float32]) -> set[int]:
    """Which of `flat_pictures` the crops come from."""
    found = {int(crop.flat[0]) + 128 for crop in batch}
    assert all((crop == crop.flat[0]).all() for crop in batch)
    return found


def test_batches_depend_on_seed_step_and_rank_alone(tmp_path: Path) -> None:
    items = FileItems([write_pictures(tmp_path / "in", 5)], Modality.IMAGE)
    with pool(items) as plain, pool(items, workers=3) as threads, pool(items) as jumping, pool(items, seed=1) as other:
        steps = [plain.batch(step) for step in range(8)]
        assert all((threads.batch(step) == steps[step]).all() for step in range(8))
        assert (jumping.batch(7) == steps[7]).all()
        assert (jumping.batch(2) == steps[2]).all()
        assert (other.batch(0) != steps[0]).any()
        assert (steps[0] != steps[1]).any()
    with pool(items, rank=1, world=2) as second, pool(items, rank=0, world=2) as first:
        assert (second.batch(0) != first.batch(0)).any()


def test_ranks_read_different_items_and_all_are_read(tmp_path: Path) -> None:
    items = flat_pictures(tmp_path / "in", 200)
    with pool(items, rank=0, world=2, batch=64) as one, pool(items, rank=1, world=2, batch=64) as two:
        left, right = sources(one.batch(0)), sources(two.batch(0))
        assert not left & right
        everything = left | right
        for step in range(1, 60):
            everything |= sources(one.batch(step)) | sources(two.batch(step))
        assert everything == set(range(200))


def test_held_out_items_are_never_trained_on(tmp_path: Path) -> None:
    items = flat_pictures(tmp_path / "in", 10)
    with pool(items, batch=32) as crops:
        held = {int(item.levels.flat[0]) + 128 for item in crops.hold_out(3)}
        seen = sources(crops.start(50)) | set().union(*(sources(crops.batch(step)) for step in range(20)))
    assert len(held) == 3
    assert seen == set(range(10)) - held
    with pool(flat_pictures(tmp_path / "one", 1)) as alone:
        assert alone.hold_out(1) == []


def test_broken_items_are_reported_once_and_left_out(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", 3)
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:100])
    (folder / "gone.png").symlink_to(folder / "nothing")
    (folder / "empty.jpg").touch()
    bad: list[BadItem] = []
    with CropPool(FileItems([folder], Modality.IMAGE), IMAGE, batch=4, seed=0, report=bad.append) as crops:
        crops.hold_out(1)
        crops.start(20)
        for step in range(20):
            crops.batch(step)
    assert sorted(item.item for item in bad) == ["cut.png", "empty.jpg"]
    assert all(item.message and str(tmp_path) not in item.message for item in bad)


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pool(FileItems([tmp_path], Modality.IMAGE)) as crops:
        with pytest.raises(InputError, match="none of 1 items"):
            crops.start(10)
        with pytest.raises(InputError, match="quarantine"):
            crops.batch(0)
    with pytest.raises(InputError, match="no volume files"):
        FileItems([tmp_path], Modality.VOLUME)


def test_content_decides_where_the_name_does_not(tmp_path: Path) -> None:
    still, moving = (Image.new("RGB", (8, 8), (value, 0, 0)) for value in (1, 2))
    still.save(tmp_path / "still.webp")
    still.save(tmp_path / "moving.webp", save_all=True, append_images=[moving], lossless=True)
    np.save(tmp_path / "clip.npy", np.zeros((3, 8, 8, 3), np.uint8))
    np.save(tmp_path / "volume.npy", np.zeros((3, 8, 8), np.float32))
    found = {kind: FileItems([tmp_path], kind) for kind in (Modality.VIDEO, Modality.IMAGE)}
    names = {kind: [items.name(index) for index in range(len(items))] for kind, items in found.items()}
    assert names == {Modality.VIDEO: ["clip.npy", "moving.webp"], Modality.IMAGE: ["moving.webp", "still.webp"]}


def test_a_file_that_vanishes_is_left_out(tmp_path: Path) -> None:
    items = flat_pictures(tmp_path / "in", 4)
    (tmp_path / "in" / "02.png").unlink()
    with pool(items, batch=32) as crops:
        assert sources(crops.batch(0)) == {0, 1, 3}


def test_crops_are_the_picture_s_pixels_minus_128(tmp_path: Path) -> None:
    size = 23, 29
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    unscaled = dataclasses.replace(IMAGE, short_sides=())
    crops = CropReader(FileItems([tmp_path], Modality.IMAGE), unscaled, 0).visit(0, np.random.default_rng(1))
    places = np.lib.stride_tricks.sliding_window_view(pixels, (16, 16, 3))[:, :, 0]
    for crop in crops:
        assert ((crop[0].astype(int) + 128 == places).all((2, 3, 4))).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (15, 3), (4000, 2)])
def test_small_pictures_are_mirrored(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / "a.png")
    reader = CropReader(FileItems([tmp_path], Modality.IMAGE), IMAGE, 0)
    assert reader.visit(0, np.random.default_rng(0)).shape[1:] == (1, 16, 16, 3)
    assert reader.whole(0, (1, 768, 768)).shape[0] == 1


def scale(reader: CropReader, seed: int) -> int:
    stretch = reader._stretch((0, 0), reader._items.pieces(0)[0], np.random.default_rng(seed))
    return min(stretch.shape[1:3])


def test_scales_are_those_that_the_picture_is_large_enough_for(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1, size=(64, 40))
    reader = CropReader(FileItems([tmp_path], Modality.IMAGE), IMAGE, 1 << 20)
    sides = {scale(reader, seed) for seed in range(9)}
    assert sides == {24}  # 40 is too small for 48
    write_pictures(tmp_path / "larger", 1, size=(64, 44))
    reader = CropReader(FileItems([tmp_path / "larger"], Modality.IMAGE), IMAGE, 1 << 20)
    sides = {scale(reader, seed) for seed in range(9)}
    assert sides == {24, 48}


@given(st.integers(0, 2**32 - 1), st.sampled_from([Modality.IMAGE, Modality.VIDEO, Modality.VOLUME]))
@settings(max_examples=30, deadline=None)
def test_turned_crops_hold_the_same_values_and_time_runs_on(seed: int, modality: Modality) -> None:
    rng = np.random.default_rng(seed)
    crops = rng.integers(-128, 128, (3, 4, 8, 8, 1)).astype(np.int8)
    crops[..., 0, 0, 0] = np.arange(4)
    result = turned(crops.copy(), modality, rng)
    for before, after in zip(crops, result, strict=True):
        if modality is Modality.VIDEO:
            for t in range(4):
                assert sorted(before[t].ravel()) == sorted(after[t].ravel())
        assert sorted(before.ravel()) == sorted(after.ravel())


def test_clips_give_frames_that_follow_each_other(tmp_path: Path) -> None:
    frames = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    np.save(tmp_path / "a.npy", frames)
    items = FileItems([tmp_path], Modality.VIDEO)
    with pool(items, TINY[Modality.VIDEO], batch=16) as crops:
        for crop in crops.batch(0):
            times = crop[:, 0, 0, 0]
            assert (np.diff(times) == 1).all()


@pytest.mark.parametrize(("modality", "folder"), [(Modality.VIDEO, "video"), (Modality.VOLUME, "volumes")])
def test_real_clips_and_volumes(modality: Modality, folder: str) -> None:
    of = TINY[modality]
    with pool(FileItems([DATA / folder], modality), of, batch=2) as crops:
        assert crops.batch(0).shape == (2, *of.crop, of.autoencoder.channels)
        (whole,) = crops.whole()[:1]
        assert all(side % step == 0 for side, step in zip(whole.levels.shape, of.autoencoder.patch, strict=False))


def test_few_data_give_few_crops_to_start_from(tmp_path: Path) -> None:
    with pool(flat_pictures(tmp_path / "few", 2)) as crops:
        assert 8 <= len(crops.start(10_000)) < 100
        assert len(crops.start(5)) == 5


def test_the_shelf_keeps_within_its_bytes() -> None:
    shelf = Shelf(1000)
    for key in range(10):
        shelf.put(key, np.zeros(300, np.uint8))
        shelf.get(0)
    held = [key for key in range(10) if shelf.get(key) is not None]
    assert held == [0, 8, 9]
    shelf.put("large", np.zeros(2000, np.uint8))
    assert shelf.get("large") is None


def test_tars_and_tables_give_what_the_folder_gives(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "in", 4)
    files = sorted(folder.iterdir())
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for file in files:
            (folder / f"{file.stem}.txt").write_text("a caption")
            tar.add(file, file.name)
            tar.add(folder / f"{file.stem}.txt", f"{file.stem}.txt")
    lines = [json.dumps({"id": file.stem, "text": "a caption", "image": f"in/{file.name}"}) for file in files]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, "no json", json.dumps({"text": "alone"})]) + "\n")
    pq.write_table(pa.table({"image": [file.read_bytes() for file in files]}), tmp_path / "a.parquet", row_group_size=2)
    wanted = [FileItems([folder], Modality.IMAGE).pieces(index)[0].data.read_bytes() for index in range(4)]
    for name in ("a.tar", "a.jsonl", "a.parquet"):
        items = open_items([tmp_path / name], Modality.IMAGE)
        found = [items.pieces(index)[0].data for index in range(4)]
        assert [data if isinstance(data, bytes) else data.read_bytes() for data in found] == wanted
        assert len({items.name(index) for index in range(4)}) == 4
    bad: list[BadItem] = []
    joint = open_items([tmp_path / "a.jsonl", folder], Modality.IMAGE)
    assert len(joint) == 10
    with CropPool(joint, IMAGE, batch=4, seed=0, report=bad.append) as crops:
        crops.batch(0)
    assert len(bad) == 2
    assert joint.digest() != open_items([folder], Modality.IMAGE).digest()


def test_presets_are_whole_and_travel_as_json() -> None:
    for name, each in PRESETS.items():
        assert Preset.from_json(json.loads(json.dumps(each.to_json()))) == each, name
    assert {PRESETS[name].modality for name in DEFAULT_PRESETS.values()} == set(DEFAULT_PRESETS)
    with pytest.raises(ValueError, match="give one of image-f8"):
        preset("image-f9")
    with pytest.raises(ValueError, match="multiples of the patch"):
        dataclasses.replace(IMAGE, crop=(1, 18, 16))
    with pytest.raises(ValueError, match="one for each of 2 codebooks"):
        dataclasses.replace(IMAGE, level_weights=(1.0,))
    with pytest.raises(ValueError, match="counts of 1 or more"):
        dataclasses.replace(IMAGE, batch=0)
