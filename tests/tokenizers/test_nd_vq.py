"""image-vq, video-vq and volume-vq: the contract, equality whatever is cut or batched, levels, refusals.

The autoencoders are small and random (`nd_models`): what is tested is what holds for any weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import multitok
from multitok.errors import CheckpointError, CodeRangeError, InputError, ShapeError, SpecError
from multitok.metrics import decode_prefix
from multitok.nets import integer
from multitok.nets.engine import TorchRunner
from multitok.nets.integer import Reach
from multitok.protocol import Codes
from multitok.tokenizers import _nd_codec
from multitok.tokenizers._nd_vq import NdVq
from multitok.tokenizers.image_vq import ImageVq
from multitok.tokenizers.video_vq import VideoVq
from multitok.tokenizers.volume_vq import VolumeVq
from tests import samples
from tests.contract import check_tokenizer
from tests.tokenizers.nd_models import SIZES, config, pixels, random_net, voxels

WINDOW = (-10.0, 30.0)
IMAGE = ImageVq(random_net(config((1, 4, 2))))
VIDEO = VideoVq(random_net(config((2, 2, 4), taps=(-1, 0))))
# A volume's tiles have surroundings on six sides: a short reach keeps the tests short.
SHORT = config((2, 2, 2), channels=1, taps=(-1, 0, 1), codebook_sizes=SIZES[:2], lookahead=1)
VOLUME = VolumeVq(random_net(SHORT), window=WINDOW)
# Steps that know no others, no encoder, no tables to choose from, no looking ahead.
FRAMES = VideoVq(random_net(config((3, 2, 2), codebook_sizes=(7, 5), tables=1, encoder_blocks=None, lookahead=1)))
ALL = {"image": IMAGE, "video": VIDEO, "volume": VOLUME, "frames": FRAMES}
each = pytest.mark.parametrize("tokenizer", ALL.values(), ids=ALL)
kinds = st.sampled_from(list(ALL.values()))
# A fixture of pytest may stay the same for all examples here: each sets what it needs.
examples = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


def noise(tokenizer: NdVq, extent: tuple[int, ...], seed: int = 0) -> NDArray[Any]:
    return voxels(extent, WINDOW, seed) if tokenizer is VOLUME else pixels(extent, seed)


def whole_levels(tokenizer: NdVq, raw: NDArray[Any]) -> NDArray[np.int16]:
    """Levels [T, H, W, C] filled up to whole patches, straight from the documentation."""
    if tokenizer is VOLUME:
        low, high = WINDOW
        raw = (np.rint((np.clip(raw.astype(float), low, high) - low) / (high - low) * 255))[..., None]
    frames = raw.reshape(1, *raw.shape) if raw.ndim == 3 else raw
    patch = tokenizer.net.config.patch
    rows = [np.minimum(np.arange(-(-n // p) * p), n - 1) for n, p in zip(frames.shape[:3], patch, strict=True)]
    return (frames[np.ix_(*rows)].astype(int) - 128).astype(np.int16)


def encoded_whole(tokenizer: NdVq, raw: NDArray[Any]) -> NDArray[np.int32]:
    """Codes [K, *grid] by one call of the autoencoder: no tile, no chunk, no memory."""
    codes = np.moveaxis(tokenizer.net.encode_levels(whole_levels(tokenizer, raw)), -1, 0)
    return codes[:, 0] if len(tokenizer.spec.grid_axes) == 2 else codes


def decoded_whole(tokenizer: NdVq, codes: Codes) -> NDArray[Any]:
    """The raw array by one call of the autoencoder."""
    values = codes.values if codes.values.ndim == 4 else codes.values[:, None]
    levels = tokenizer.net.decode_levels(np.moveaxis(values, 0, -1))
    levels = levels[0] if len(codes.extent) == 2 else levels
    levels = levels[tuple(slice(n) for n in codes.extent)]
    if tokenizer is VOLUME:
        share = np.clip((levels[..., 0] + 128) / 255, 0, 1)
        return (WINDOW[0] + share * (WINDOW[1] - WINDOW[0])).astype(np.float32)
    return np.clip(np.rint(levels + 128), 0, 255).astype(np.uint8)


@each
def test_contract(tokenizer: NdVq, tmp_path: Path) -> None:
    check_tokenizer(tokenizer, samples.raws(tokenizer), tmp_path)


@pytest.mark.parametrize("patch", [(1, 8, 8), (1, 4, 2)])
def test_spectrograms_and_series_are_volumes_of_one_slice(patch: tuple[int, int, int], tmp_path: Path) -> None:
    tokenizer = VolumeVq(random_net(config(patch, channels=1)), window=(-80.0, 0.0), name="mel")
    spectrogram, series = voxels((101, 40), (-80, 0)), voxels((33, 1), (-80, 0))
    check_tokenizer(tokenizer, [spectrogram[None], series[None]], tmp_path)
    assert tokenizer.encode(spectrogram[None]).grid == (1, -(-101 // patch[1]), -(-40 // patch[2]))


@examples
@given(kinds, st.data())
def test_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch, tokenizer: NdVq, data: st.DataObject) -> None:
    axes, longest = tokenizer.spec.grid_axes, {"h": 200, "t": 120, "z": 60}
    extent = tuple(data.draw(st.integers(1, 12 if axis in "tz" else longest[axes[0]]), axis) for axis in axes)
    raw = noise(tokenizer, extent, data.draw(st.integers(0, 99), "seed"))
    # Down to cores of a few positions: a tile is then little more than its surroundings.
    monkeypatch.setattr(
        _nd_codec, "TILE_POSITIONS", data.draw(st.integers(2000 if tokenizer is VOLUME else 1200, 6000), "tile")
    )
    codes = tokenizer.encode(raw)
    assert np.array_equal(codes.values, encoded_whole(tokenizer, raw))
    assert np.array_equal(tokenizer.decode(codes), decoded_whole(tokenizer, codes))


def test_tiles_of_one_position(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = noise(IMAGE, (40, 22))
    codes, decoded = IMAGE.encode(raw), IMAGE.decode(IMAGE.encode(raw))
    monkeypatch.setattr(_nd_codec, "TILE_POSITIONS", 1)
    assert IMAGE.encode(raw) == codes
    assert np.array_equal(IMAGE.decode(codes), decoded)


@pytest.mark.parametrize("direction", ["encode_reach", "decode_reach"])
def test_that_tiles_would_show_without_their_surroundings(monkeypatch: pytest.MonkeyPatch, direction: str) -> None:
    monkeypatch.setattr(_nd_codec, "TILE_POSITIONS", 100)
    monkeypatch.setattr(integer.IntegerAutoencoder, direction, lambda *_: Reach(0, 0, 1))
    for tokenizer in (IMAGE, VIDEO, VOLUME):
        raw = noise(tokenizer, (4, 48, 44)[-len(tokenizer.spec.grid_axes) :])
        codes = Codes(encoded_whole(tokenizer, raw), raw.shape[: len(tokenizer.spec.grid_axes)])
        if direction == "encode_reach":
            assert tokenizer.encode(raw) != codes
        else:
            assert not np.array_equal(tokenizer.decode(codes), decoded_whole(tokenizer, codes))


@examples
@given(st.sampled_from([IMAGE, VIDEO, VOLUME]), st.data())
def test_a_crop_with_its_surroundings_has_the_codes_of_the_whole(tokenizer: NdVq, data: st.DataObject) -> None:
    """What a user with an own tiling may rely on: patch by patch, at any position and at the borders."""
    stride = tokenizer.spec.stride
    extent = tuple(data.draw(st.integers(1, 12 if axis in "tz" else 70), axis) for axis in tokenizer.spec.grid_axes)
    raw = noise(tokenizer, extent)
    codes = tokenizer.encode(raw)
    reach = tokenizer.net.encode_reach()
    around = [(reach.past, reach.ahead), *[(reach.around,) * 2] * 2][-len(stride) :]
    cores, crops, inner = [], [], []
    for n, step, (before, after) in zip(codes.grid, stride, around, strict=True):
        start = data.draw(st.integers(0, n - 1))
        stop = data.draw(st.integers(start + 1, n))
        first = max(0, start - before)
        cores.append(slice(start, stop))
        crops.append(slice(first * step, (stop + after) * step))
        inner.append(slice(start - first, stop - first))
    part = tokenizer.encode(raw[tuple(crops)])
    assert np.array_equal(part.values[(slice(None), *inner)], codes.values[(slice(None), *cores)])


@examples
@given(
    kinds, st.lists(st.sampled_from([(5, 9, 12), (5, 9, 11), (1, 4, 4), (2, 30, 8)]), max_size=5), st.integers(1, 900)
)
def test_batches_equal_single_calls(
    monkeypatch: pytest.MonkeyPatch, tokenizer: NdVq, extents: list[tuple[int, ...]], tile: int
) -> None:
    raws = [noise(tokenizer, extent[-len(tokenizer.spec.grid_axes) :], i) for i, extent in enumerate(extents)]
    monkeypatch.setattr(_nd_codec, "TILE_POSITIONS", max(tile, 200))
    batch = tokenizer.encode_batch(raws)
    decoded = tokenizer.decode_batch(batch)
    monkeypatch.undo()
    assert batch == [tokenizer.encode(raw) for raw in raws]
    for one, codes in zip(decoded, batch, strict=True):
        assert np.array_equal(one, tokenizer.decode(codes))


@each
def test_batches_refuse_what_single_calls_refuse(tokenizer: NdVq) -> None:
    with pytest.raises(ShapeError):
        tokenizer.encode_batch([noise(tokenizer, (4, 4, 4)[-len(tokenizer.spec.grid_axes) :]), np.zeros(3)])
    codes = tokenizer.encode(noise(tokenizer, (4, 4, 4)[-len(tokenizer.spec.grid_axes) :]))
    with pytest.raises(CodeRangeError):
        tokenizer.decode_batch([codes, Codes(codes.values + 100, codes.extent)])


@each
def test_sizes_repeat_their_edge(tokenizer: NdVq) -> None:
    extent = (5, 9, 11)[-len(tokenizer.spec.grid_axes) :]
    raw = noise(tokenizer, extent)
    full = tokenizer.spec.full_extent(tokenizer.encode(raw).grid)
    missing = [(0, n - m) for n, m in zip(full, extent, strict=True)]
    padded = np.pad(raw, [*missing, *[(0, 0)] * (raw.ndim - len(missing))], mode="edge")
    assert padded.shape != raw.shape
    whole = tokenizer.encode(padded)
    assert np.array_equal(whole.values, tokenizer.encode(raw).values)
    cropped = tokenizer.decode(whole)[tuple(slice(n) for n in extent)]
    assert np.array_equal(cropped, tokenizer.decode(tokenizer.encode(raw)))


def test_a_frame_is_a_clip_and_repeats() -> None:
    frame = noise(VIDEO, (1, 9, 10))
    assert np.array_equal(VIDEO.encode(frame).values, VIDEO.encode(np.repeat(frame, 2, axis=0)).values)
    assert VIDEO.decode(VIDEO.encode(frame)).shape == frame.shape


def test_video_is_causal() -> None:
    raw = noise(VIDEO, (9, 12, 12))
    changed = raw.copy()
    changed[6:] ^= 255
    before, after = VIDEO.encode(raw), VIDEO.encode(changed)
    assert np.array_equal(before.values[:, :3], after.values[:, :3])
    assert not np.array_equal(before.values[:, 3:], after.values[:, 3:])
    assert np.array_equal(VIDEO.decode(before)[:6], VIDEO.decode(after)[:6])


@pytest.mark.parametrize("extent", [(1, 1), (1, 3000), (3000, 1), (3, 5), (4, 4), (5, 4)])
def test_any_picture_size(extent: tuple[int, int]) -> None:
    raw = noise(IMAGE, extent)
    codes = IMAGE.encode(raw)
    assert codes.grid == (-(-extent[0] // 4), -(-extent[1] // 2))
    assert codes.num_tokens == IMAGE.num_tokens(extent)
    assert IMAGE.decode(codes).shape == raw.shape


@each
def test_memory_layout_does_not_show(tokenizer: NdVq, tmp_path: Path) -> None:
    extent = (4, 11, 9)[-len(tokenizer.spec.grid_axes) :]
    raw = noise(tokenizer, extent)
    codes, decoded = tokenizer.encode(raw), tokenizer.decode(tokenizer.encode(raw))
    np.save(tmp_path / "raw.npy", raw)
    spread = np.zeros([2 * n for n in raw.shape], raw.dtype)[tuple(slice(None, None, 2) for _ in raw.shape)]
    spread[...] = raw
    mapped = [np.load(tmp_path / "raw.npy", mmap_mode=mode) for mode in ("r", "r+", "c")]
    mapped[2][...] = raw  # private pages, to be kept
    for same in (np.asfortranarray(raw), spread, raw[::-1].copy()[::-1], *mapped):
        assert tokenizer.encode(same) == codes
        assert np.array_equal(same, raw)
    swapped = Codes(np.asfortranarray(codes.values), codes.extent)
    assert np.array_equal(tokenizer.decode(swapped), decoded)
    for mode in ("r+", "c"):
        out = np.load(tmp_path / "raw.npy", mmap_mode=mode)
        assert tokenizer.decode(codes, out=out) is out
        assert np.array_equal(out, decoded)
    strided = np.zeros_like(spread)
    assert np.array_equal(tokenizer.decode(codes, out=strided[::-1]), strided[::-1])
    assert np.array_equal(strided[::-1], decoded)


@each
def test_threads_do_not_show(tokenizer: NdVq) -> None:
    raw = noise(tokenizer, (3, 60, 62)[-len(tokenizer.spec.grid_axes) :])
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            codes = tokenizer.encode(raw)
            found.append((codes.values.tobytes(), tokenizer.decode(codes).tobytes()))
    finally:
        torch.set_num_threads(threads)
    assert len(set(found)) == 1


@each
def test_the_engine_does_not_show(tokenizer: NdVq, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = noise(tokenizer, (5, 21, 30)[-len(tokenizer.spec.grid_axes) :])
    codes, decoded = tokenizer.encode(raw), tokenizer.decode(tokenizer.encode(raw))
    monkeypatch.setattr(integer, "make_stack", TorchRunner)
    by_torch = type(tokenizer).from_state(tokenizer.get_config(), tokenizer.get_tensors())
    assert by_torch.encode(raw) == codes
    assert np.array_equal(by_torch.decode(codes), decoded)


@each
def test_levels_can_be_dropped(tokenizer: NdVq, tmp_path: Path) -> None:
    raw = noise(tokenizer, (3, 14, 15)[-len(tokenizer.spec.grid_axes) :])
    codes = tokenizer.encode(raw)
    pictures = []
    for count in range(1, tokenizer.spec.num_codebooks + 1):
        first = tokenizer.first_codebooks(count)
        prefix = Codes(codes.values[:count], codes.extent)
        assert first.spec.codebook_sizes == tokenizer.spec.codebook_sizes[:count]
        assert first.encode(raw) == prefix
        decoded = first.decode(prefix)
        for either in (codes, prefix):
            assert np.array_equal(tokenizer.decode(either, num_codebooks=count), decoded)
        assert np.array_equal(decode_prefix(tokenizer, codes, count), decoded)
        saved = multitok.load(multitok.save(first, tmp_path / str(count), card="# card\n"))
        assert saved.encode(raw) == prefix
        pictures.append(decoded.tobytes())
    assert len(set(pictures)) == tokenizer.spec.num_codebooks
    for count in (0, tokenizer.spec.num_codebooks + 1):
        with pytest.raises(SpecError, match="1 to"):
            tokenizer.first_codebooks(count)
        with pytest.raises(SpecError, match="1 to"):
            tokenizer.decode(codes, num_codebooks=count)


def test_dropping_levels_of_codes_that_are_too_few() -> None:
    codes = IMAGE.encode(noise(IMAGE, (8, 8)))
    with pytest.raises(ShapeError, match="3 codebooks"):
        IMAGE.decode(Codes(codes.values[:1], codes.extent), num_codebooks=2)
    with pytest.raises(ShapeError, match="3 codebooks"):
        IMAGE.decode(Codes(codes.values[:2], codes.extent))


def test_levels_of_a_window() -> None:
    low, high = WINDOW
    steps = (low + np.arange(256) / 255 * (high - low)).astype(np.float32)
    assert VOLUME._levels.encode(steps).tolist() == list(range(-128, 128))
    assert np.allclose(VOLUME._levels.decode(np.arange(-128.0, 128.0)), steps, atol=1e-5)
    far = np.full((2, 3, 4), 1e30, np.float32)
    assert VOLUME.encode(far) == VOLUME.encode(np.full_like(far, high))
    assert VOLUME.encode(-far) == VOLUME.encode(np.full_like(far, low))
    decoded = VOLUME.decode(VOLUME.encode(noise(VOLUME, (6, 7, 8))))
    assert low <= decoded.min() < decoded.max() <= high
    assert VOLUME.window == WINDOW


@pytest.mark.parametrize("window", [(1.0, 1.0), (2.0, 1.0), (0.0, float("nan")), (0.0, float("inf")), (0.0,)])
def test_windows_that_cannot_be(window: tuple[float, ...]) -> None:
    with pytest.raises(SpecError, match="low < high"):
        VolumeVq(VOLUME.net, window=window)


@pytest.mark.parametrize(
    ("tokenizer", "raw", "message"),
    [
        (IMAGE, np.zeros((4, 4, 3), np.float32), r"give uint8 \[H, W, 3\]"),
        (IMAGE, np.zeros((4, 4), np.uint8), "gray pixels repeat the channel"),
        (IMAGE, "picture.png", "given str"),
        (VIDEO, np.zeros((4, 4, 3), np.uint8), r"give uint8 \[T, H, W, 3\]"),
        (VOLUME, np.zeros((4, 4, 4)), r"write x\.astype"),
        (VOLUME, np.zeros((4, 4, 4, 1), np.float32), "one channel"),
    ],
)
def test_wrong_arrays(tokenizer: NdVq, raw: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        tokenizer.encode(raw)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_volumes_that_are_not_finite(bad: float) -> None:
    raw = np.zeros((3, 4, 5), np.float32)
    raw[2, 1, 3] = bad
    with pytest.raises(InputError, match=r"voxel \(2, 1, 3\) \(z, y, x\) is (nan|inf)"):
        VOLUME.encode(raw)


@each
def test_empty_axes(tokenizer: NdVq) -> None:
    rank = len(tokenizer.spec.stride)
    for axis in range(rank):
        raw = noise(tokenizer, (4,) * rank)[(*[slice(None)] * axis, slice(0))]
        with pytest.raises(InputError, match="every axis must be at least 1 long"):
            tokenizer.encode(raw)
    empty = tokenizer.spec.full_extent((0,) * rank)
    with pytest.raises(ShapeError, match="every axis is at least 1 long"):
        tokenizer.decode(Codes(np.zeros((tokenizer.spec.num_codebooks, *empty), np.int32), empty))


def test_codes_and_outputs_that_do_not_fit() -> None:
    codes = IMAGE.encode(noise(IMAGE, (8, 8)))
    for extent in ((8, 9), (16, 4)):
        with pytest.raises(ShapeError, match="make a grid"):
            IMAGE.decode(Codes(codes.values, extent))
    for out in (np.zeros((8, 8, 3)), np.zeros((8, 9, 3), np.uint8)):
        with pytest.raises(ShapeError, match=r"these codes need uint8 \[8, 8, 3\]"):
            IMAGE.decode(codes, out=out)


@pytest.mark.parametrize(
    ("cls", "net", "message"),
    [
        (ImageVq, VIDEO.net, r"taps \(-1, 0\): 'image-vq' needs 3 and taps \(0,\)"),
        (ImageVq, FRAMES.net, "an image has one frame"),
        (ImageVq, VOLUME.net, "1 channels"),
        (VideoVq, VOLUME.net, "needs 3"),
        (VolumeVq, IMAGE.net, "needs 1"),
    ],
)
def test_autoencoders_of_another_kind(cls: Any, net: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        cls(net)


def tensors(**changes: Any) -> dict[str, NDArray[Any]]:
    changed = {**VOLUME.get_tensors(), **{key.replace("__", "."): value for key, value in changes.items()}}
    return {key: value for key, value in changed.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (tensors(basis=None), "basis"),
        (tensors(encoder__entry__weights=None), "encoder.entry"),
        (tensors(codebook_1=np.zeros((3, 9, 7), np.int8)), r"codebook_1 is int8 \[3, 9, 7\]"),
        (tensors(spread=np.ones(6)), "spread is float64"),
        (tensors(spread=np.full(6, np.nan, np.float32)), "spread"),
        (tensors(decoder__exit__scale=np.zeros(4, np.float32)), "decoder.exit"),
        (tensors(extra=np.zeros(1)), "extra"),
        (tensors(decoder__fine__7__first__weights=np.zeros(1, np.int8)), "decoder.fine.7"),
    ],
)
def test_tensors_that_do_not_fit(state: dict[str, NDArray[Any]], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        VolumeVq.from_state(VOLUME.get_config(), state)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"num_codebooks": 4}, SpecError),
        ({"num_codebooks": 0}, SpecError),
        ({"window": [1, 0]}, SpecError),
        ({"window": None}, TypeError),
        ({"surplus": 1}, TypeError),
        ({"autoencoder": {**VOLUME.net.config.to_json(), "depth": 3}}, TypeError),
        ({"autoencoder": {**VOLUME.net.config.to_json(), "latent_dim": 7}}, SpecError),
        ({"autoencoder": {**VOLUME.net.config.to_json(), "taps": [0, 1]}}, SpecError),
    ],
)
def test_configurations_that_do_not_fit(change: dict[str, Any], error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        VolumeVq.from_state({**VOLUME.get_config(), **change}, VOLUME.get_tensors())
    folder = multitok.save(VOLUME, tmp_path / "saved", card="# card\n")
    data = json.loads((folder / "config.json").read_text())
    data["config"].update(change)
    (folder / "config.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="do not fit kind 'volume-vq'"):
        multitok.load(folder)


@pytest.mark.parametrize("key", ["name", "num_codebooks", "window"])
def test_configurations_that_lack_something(key: str) -> None:
    configuration = {name: value for name, value in VOLUME.get_config().items() if name != key}
    with pytest.raises(SpecError, match=f"lacks {key}"):
        VolumeVq.from_state(configuration, VOLUME.get_tensors())


@pytest.mark.parametrize("kind", ["image-vq", "video-vq", "volume-vq"])
def test_a_kind_needs_a_checkpoint(kind: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be built without a checkpoint"):
        multitok.load(kind)


def test_state_is_copied() -> None:
    given = IMAGE.get_tensors()
    tokenizer = ImageVq.from_state(IMAGE.get_config(), given)
    raw = noise(IMAGE, (8, 8))
    for value in (given["basis"], tokenizer.get_tensors()["codebook_0"]):
        value[:] = 0
    assert tokenizer.encode(raw) == IMAGE.encode(raw)


def test_sums_of_large_patches_are_exact() -> None:
    """Of 32 x 32 pixels in three colours: float32 would lose their last bits."""
    net = random_net(config((1, 32, 32), encoder_blocks=None))
    flat = dict(net.tensors) | {"basis": np.full((3072, 6), 74, np.int16) - np.arange(6, dtype=np.int16)}
    tokenizer = ImageVq(integer.IntegerAutoencoder(net.config, flat))
    levels = np.random.default_rng(0).integers(90, 128, (1, 32, 32 * 300, 3)).astype(np.int16)
    patches = levels.reshape(32, 300, 32, 3).transpose(1, 0, 2, 3).reshape(300, -1).astype(np.int64)
    exact = patches @ flat["basis"].astype(np.int64)
    assert exact.max() > 2**24
    # Half to even of a sum over 2^9, in integers.
    whole, rest = exact >> 9, exact & 511
    expected = whole + ((rest > 256) | ((rest == 256) & (whole % 2 == 1)))
    assert np.array_equal(tokenizer.net.latents(levels).reshape(300, 6), expected)
    pixels = torch.from_numpy(levels[0] + 128).permute(2, 0, 1)[None]
    codes = tokenizer.encode((levels[0] + 128).astype(np.uint8))
    assert np.array_equal(tokenizer.module.encode(pixels)[0].numpy(), codes.values)


def test_the_random_nets_use_all_they_have() -> None:
    """Or nothing above would mean much."""
    for tokenizer in ALL.values():
        codes = tokenizer.encode(noise(tokenizer, (6, 40, 40)[-len(tokenizer.spec.grid_axes) :])).values
        assert all(len(np.unique(row)) > 3 for row in codes)
    assert IMAGE.spec.codebook_sizes == SIZES
