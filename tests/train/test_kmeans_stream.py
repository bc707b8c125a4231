"""k-means over streams: the same bytes for every cut, files, killed runs that go on, streams that are not the same."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from multitok.errors import CheckpointError, InputError, ShapeError, SpecError
from multitok.train import kmeans_data
from multitok.train.kmeans import train_kmeans, train_kmeans_stream
from multitok.train.kmeans_minibatch import train_kmeans_minibatch

Train = Callable[..., NDArray[Any]]


def passes(count: int) -> Callable[..., NDArray[Any]]:
    return lambda batches, **options: train_kmeans_stream(batches, 6, iterations=count, **options)


def minibatch_passes(count: int) -> Callable[..., NDArray[Any]]:
    return lambda batches, **options: train_kmeans_minibatch(batches, 6, passes=count, batch_size=32, **options)


both = pytest.mark.parametrize("of_passes", [passes, minibatch_passes], ids=["lloyd", "mini-batch"])


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks in a few hundred vectors."""
    monkeypatch.setattr(kmeans_data, "BLOCK_VECTORS", (16, 64))
    monkeypatch.setattr(kmeans_data, "BLOCK_BYTES", 400)


def draw(count: int, dim: int = 3, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)


def cut(vectors: NDArray[Any], places: list[int]) -> list[NDArray[Any]]:
    return np.split(vectors, sorted(place % (len(vectors) + 1) for place in places))


@both
@pytest.mark.usefixtures("small_blocks")
def test_every_cut_gives_the_same_bytes(of_passes: Callable[[int], Train]) -> None:
    vectors = np.concatenate([draw(333), np.zeros((50, 3), np.float32)])
    first = of_passes(3)([vectors])

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.integers(0, 1000), max_size=12))
    def check(places: list[int]) -> None:
        assert np.array_equal(of_passes(3)(cut(vectors, places)), first)

    check()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("start", ["k-means++", "sample"])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_a_stream_gives_what_the_whole_array_gives(start: str, metric: str) -> None:
    vectors = draw(500)
    options: dict[str, Any] = {"start": start, "metric": metric, "iterations": 4, "seed": 3}
    whole = train_kmeans(vectors, 6, **options)
    assert np.array_equal(train_kmeans_stream(lambda: iter(cut(vectors, [100, 101, 480])), 6, **options), whole)


def test_blocks_do_not_change_the_codebook(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = draw(500)
    first = train_kmeans(vectors, 6)
    monkeypatch.setattr(kmeans_data, "BLOCK_VECTORS", (7, 7))
    monkeypatch.setattr(kmeans_data, "BLOCK_VECTORS_PER_CODE", 1)
    assert np.array_equal(train_kmeans(vectors, 6), first)


@both
def test_an_array_that_is_used_again_for_the_next_batch(of_passes: Callable[[int], Train]) -> None:
    vectors = draw(300)

    def batches() -> Iterator[NDArray[np.float32]]:
        buffer = np.empty((30, 3), np.float32)
        for start in range(0, 300, 30):
            buffer[:] = vectors[start : start + 30]
            yield buffer

    assert np.array_equal(of_passes(2)(batches), of_passes(2)([vectors]))


@both
def test_files(of_passes: Callable[[int], Train], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans_data, "FILE_VECTORS", 17)
    vectors = draw(300)
    np.save(tmp_path / "a.npy", vectors[:100])
    safetensors.numpy.save_file({"latents": vectors[100:250]}, tmp_path / "b.safetensors")
    mapped = np.lib.format.open_memmap(tmp_path / "c.npy", "w+", np.float32, (50, 3))
    mapped[:] = vectors[250:]
    mixed = [tmp_path / "a.npy", str(tmp_path / "b.safetensors"), mapped]
    assert np.array_equal(of_passes(2)(mixed), of_passes(2)([vectors]))


def test_a_mapped_array_is_never_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.npy"
    mapped = np.lib.format.open_memmap(path, "w+", np.float32, (2**20, 16))
    mapped[:] = np.arange(2**20, dtype=np.float32)[:, None] % 1000
    del mapped
    tracemalloc.start()
    try:
        train_kmeans(np.load(path, mmap_mode="r"), 4, iterations=1)
        train_kmeans_stream([path], 4, iterations=1)
        train_kmeans_minibatch([path], 4)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 2


class Killed(Exception):
    pass


@both
@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("tolerance", [0.0, 1e-6])
def test_a_killed_run_goes_on(of_passes: Callable[[int], Train], tolerance: float, tmp_path: Path) -> None:
    parts = cut(draw(400), [50, 120, 300])
    options = {"tolerance": tolerance} if of_passes is passes and tolerance else {}
    undisturbed = of_passes(4)(parts, **options)
    read_before, read = [0], [0]

    def batches() -> Iterator[NDArray[np.float32]]:
        for part in parts:
            if read[0] == last:
                raise Killed
            read[0] += 1
            yield part

    of_passes(4)(lambda: counted(parts, read_before), **options)
    for last in range(read_before[0]):
        read[0] = 0
        state = tmp_path / f"{last}-{tolerance}"
        with pytest.raises(Killed):
            of_passes(4)(batches, state_file=state, **options)
        again = [0]
        resumed = of_passes(4)(lambda count=again: counted(parts, count), state_file=state, **options)
        assert np.array_equal(resumed, undisturbed)
        # What was read before, but for the pass that was cut short.
        assert again[0] <= read_before[0] - last + len(parts)
        # A finished run has nothing left to do.
        assert np.array_equal(of_passes(4)(lambda: 1 / 0, state_file=state, **options), undisturbed)


def counted(parts: list[NDArray[Any]], count: list[int]) -> Iterator[NDArray[Any]]:
    for part in parts:
        count[0] += 1
        yield part


@both
def test_further_passes_may_be_asked_for(of_passes: Callable[[int], Train], tmp_path: Path) -> None:
    vectors = draw(400)
    of_passes(2)([vectors], state_file=tmp_path / "state")
    assert np.array_equal(of_passes(5)([vectors], state_file=tmp_path / "state"), of_passes(5)([vectors]))


@both
def test_a_state_of_another_run_is_refused(of_passes: Callable[[int], Train], tmp_path: Path) -> None:
    vectors, state = draw(400), tmp_path / "state"
    of_passes(1)([vectors], state_file=state)
    with pytest.raises(CheckpointError, match=r"seed=0, this one has 1: give the same arguments"):
        of_passes(1)([vectors], state_file=state, seed=1)
    with pytest.raises(CheckpointError, match=r"start='k-means\+\+', this one has 'float32 \[6, 3\] sha256"):
        of_passes(1)([vectors], state_file=state, start=vectors[:6])
    with pytest.raises(CheckpointError, match=r"metric='l2', this one has 'cosine'"):
        of_passes(1)([vectors], state_file=state, metric="cosine")
    for content in (b"", b"not a state", safetensors.numpy.save({"codebook": vectors[:6]})):
        state.write_bytes(content)
        with pytest.raises(CheckpointError, match="is no state of k-means"):
            of_passes(1)([vectors], state_file=state)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@both
@pytest.mark.parametrize("change", ["fewer", "more", "larger"])
def test_a_stream_that_changes_is_refused(of_passes: Callable[[int], Train], change: str) -> None:
    vectors = draw(200)
    later = {"fewer": vectors[:-1], "more": np.concatenate([vectors, vectors[:1]]), "larger": 2 * vectors}[change]
    reads: list[None] = []

    def batches() -> Iterator[NDArray[np.float32]]:
        reads.append(None)
        yield vectors if len(reads) == 1 else later

    with pytest.raises(InputError, match="a later pass gave other vectors than the first one, which gave 200"):
        of_passes(3)(batches)


@both
@pytest.mark.usefixtures("small_blocks")
def test_a_value_that_is_not_finite_is_named_by_its_row_in_the_stream(of_passes: Callable[[int], Train]) -> None:
    vectors = draw(400)
    vectors[345, 2] = np.nan
    with pytest.raises(InputError, match=r"vectors\[345, 2\] is nan"):
        of_passes(1)(cut(vectors, [10, 200, 340]))


@both
def test_wrong_streams(of_passes: Callable[[int], Train], tmp_path: Path) -> None:
    vectors, train = draw(50), of_passes(1)
    with pytest.raises(SpecError, match=r"given as generator: .* a function that returns a new iterator"):
        train(batch for batch in [vectors])
    with pytest.raises(InputError, match="no vectors"):
        train([])
    with pytest.raises(InputError, match="no vectors"):
        train(lambda: iter([vectors[:0]]))
    with pytest.raises(ShapeError, match="float64 with D = 3, the first one is float32 with D = 3"):
        train([vectors, vectors.astype(np.float64)])
    with pytest.raises(ShapeError, match="float32 with D = 2, the first one is float32 with D = 3"):
        train([vectors, vectors[:, :2]])
    with pytest.raises(ShapeError, match="vectors are list"):
        train([vectors.tolist()])
    with pytest.raises(FileNotFoundError):
        train([tmp_path / "missing.npy"])
    with pytest.raises(SpecError, match=r"latents\.pt: give \.npy or \.safetensors"):
        train([tmp_path / "latents.pt"])
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"bad\.npy: not a \.npy file"):
        train([tmp_path / "bad.npy"])
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match=r"objects\.npy: not a \.npy file"):
        train([tmp_path / "objects.npy"])
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"bad\.safetensors: not a safetensors file"):
        train([tmp_path / "bad.safetensors"])
    safetensors.numpy.save_file({"a": vectors, "b": vectors}, tmp_path / "two.safetensors")
    with pytest.raises(InputError, match=r"two\.safetensors holds 2 tensors"):
        train([tmp_path / "two.safetensors"])
    safetensors.numpy.save_file({"a": vectors[0]}, tmp_path / "flat.safetensors")
    with pytest.raises(ShapeError, match=r"tensor 'a' is F32 \[3\]"):
        train([tmp_path / "flat.safetensors"])
