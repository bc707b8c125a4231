"""Runs and merges of speech units: exact inverses, merges against a slow reference, lengths, what is refused."""

from __future__ import annotations

import itertools
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from multitok.errors import ShapeError, SpecError
from multitok.protocol import Codes
from multitok.tokenizers._semantic_frames import LogMelFrontEnd
from multitok.tokenizers._unit_bpe import UnitBpe, frames_of, runs_of, spread, steady_units
from multitok.tokenizers.audio_units import LONGEST_RUN, TYPICAL_RUN
from multitok.train.unit_bpe import train_unit_bpe
from tests import samples
from tests.contract import check_tokenizer
from tests.tokenizers.semantic_models import speech_like, tokenizer

UNITS = hnp.arrays(np.int32, st.integers(1, 200), elements=st.integers(0, 7))
SEMANTIC = tokenizer(LogMelFrontEnd(frames=0))


def _slow_encode(bpe: UnitBpe, units: list[int]) -> list[int]:
    ranks = {tuple(pair): rank for rank, pair in enumerate(bpe.merges.tolist())}
    tokens = list(units)
    while found := [ranks[pair] for pair in pairwise(tokens) if pair in ranks]:
        rank = min(found)
        at = next(i for i, pair in enumerate(pairwise(tokens)) if ranks.get(pair) == rank)
        tokens[at : at + 2] = [bpe.num_units + rank]
    return tokens


def _slow_training(clips: list[list[int]], num_units: int, num_merges: int, longest: int) -> list[tuple[int, int]]:
    merges: list[tuple[int, int]] = []
    lengths = dict.fromkeys(range(num_units), 1)
    clips = [list(clip) for clip in clips]
    while len(merges) < num_merges:
        counts: dict[tuple[int, int], int] = {}
        for clip in clips:
            for pair in pairwise(clip):
                if lengths[pair[0]] + lengths[pair[1]] <= longest:
                    counts[pair] = counts.get(pair, 0) + 1
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            break
        lengths[num_units + len(merges)] = lengths[best[0]] + lengths[best[1]]
        merges.append(best)
        for clip in clips:
            i = 0
            while i + 1 < len(clip):
                if (clip[i], clip[i + 1]) == best:
                    clip[i : i + 2] = [num_units + len(merges) - 1]
                i += 1
    return merges


@given(UNITS, st.none() | st.integers(1, 9))
def test_runs_come_back(units: np.ndarray, longest: int | None) -> None:
    runs, lengths = runs_of(units, longest)
    assert np.array_equal(frames_of(runs, lengths), units)
    assert lengths.min() >= 1
    assert longest is None or lengths.max() <= longest
    assert longest is not None or (np.diff(runs) != 0).all()


@settings(deadline=None)
@given(hnp.arrays(np.int32, st.tuples(st.integers(1, 5), st.just(5)), elements=st.integers(0, 20)), st.integers(0, 30))
def test_steady_units_are_the_cheapest_path(costs: np.ndarray, penalty: int) -> None:
    codes = np.argsort(costs, axis=1, kind="stable")[:, :3].astype(np.int32)
    distances = np.take_along_axis(costs, codes, axis=1).astype(np.float64)
    found = steady_units(codes, distances, penalty)
    assert all(unit in frame for unit, frame in zip(found, codes, strict=True))

    def price(path: np.ndarray) -> float:
        return float(costs[np.arange(len(path)), path].sum() + penalty * (np.diff(path) != 0).sum())

    paths = (np.array(path) for path in itertools.product(*codes.tolist()))
    assert price(found) == min(map(price, paths))
    assert np.array_equal(steady_units(codes, distances, 0), codes[:, 0])


def test_a_penalty_makes_fewer_runs() -> None:
    wave = speech_like(30_000)
    assert np.array_equal(SEMANTIC.steady_units(wave, 0), SEMANTIC.encode(wave).values[0])
    counts = [SEMANTIC.merged(penalty=penalty).encode(wave).num_tokens for penalty in (0, 3, 30, 3000)]
    assert counts[0] > counts[-1]
    assert sorted(counts, reverse=True) == counts
    for penalty in (-1, np.inf, np.nan):
        with pytest.raises(SpecError, match="0 or more"):
            SEMANTIC.merged(penalty=penalty)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=20))
def test_totals_are_divided_evenly(pairs: list[tuple[int, int]]) -> None:
    total, parts = np.array(pairs, np.int32).reshape(-1, 2).T
    divided = np.split(spread(total, parts), np.cumsum(parts)[:-1]) if len(pairs) else []
    for whole, share in zip(total, divided, strict=True):
        assert share.sum() == whole
        assert share.max() - share.min() <= 1


@settings(deadline=None)
@given(st.lists(UNITS, min_size=1, max_size=6), st.integers(8, 30), st.integers(1, 5))
def test_merges_are_learned_as_a_slow_reference_learns_them(
    clips: list[np.ndarray], num_tokens: int, longest: int
) -> None:
    bpe = train_unit_bpe(clips, num_units=8, num_tokens=num_tokens, longest=longest)
    runs = [runs_of(clip)[0].tolist() for clip in clips]
    assert [tuple(pair) for pair in bpe.merges.tolist()] == _slow_training(runs, 8, num_tokens - 8, longest)
    assert bpe.lengths.max() <= longest


@settings(deadline=None)
@given(st.lists(UNITS, min_size=1, max_size=4), UNITS)
def test_tokens_come_back_and_are_those_of_a_slow_reference(clips: list[np.ndarray], units: np.ndarray) -> None:
    bpe = train_unit_bpe(clips, num_units=8, num_tokens=20)
    for given_ in (units, runs_of(units)[0]):
        tokens = bpe.encode(given_)
        assert np.array_equal(bpe.decode(tokens), given_)
        assert tokens.tolist() == _slow_encode(bpe, given_.tolist())


@settings(deadline=None)
@given(st.lists(UNITS, min_size=1, max_size=4))
def test_silence_joins_nothing(clips: list[np.ndarray]) -> None:
    bpe = train_unit_bpe(clips, num_units=8, num_tokens=30, silent=[0, 3])
    assert not {0, 3} & {unit for token in bpe.expansions[8:] for unit in token}


def test_a_merge_has_to_join_what_exists() -> None:
    none = np.empty(0, np.int32)
    for merges in ([[0, 5]], [[-1, 0]], [[0, 1], [0, 1]]):
        with pytest.raises(SpecError):
            UnitBpe(5, np.array(merges), none)
    with pytest.raises(SpecError, match="silent"):
        UnitBpe(5, np.array([[0, 1]]), np.array([1]))
    with pytest.raises(SpecError, match="num_tokens=3"):
        train_unit_bpe([], num_units=5, num_tokens=3)


@pytest.mark.parametrize("durations", [False, True])
@pytest.mark.parametrize("merged", [False, True])
def test_contract(merged: bool, durations: bool, tmp_path: Path) -> None:
    made = SEMANTIC.merged(durations=durations) if merged else SEMANTIC.deduplicated(durations=durations)
    check_tokenizer(made, samples.raws(made), tmp_path)


@given(UNITS)
def test_durations_without_merges_lose_nothing(units: np.ndarray) -> None:
    made = SEMANTIC.deduplicated()
    tokens = made.tokens_of(units)
    assert np.array_equal(made.units_of(Codes(tokens, (320 * units.size,))), units)


def test_a_long_pause_is_several_runs() -> None:
    made = SEMANTIC.deduplicated()
    units = np.repeat(np.array([3, 0, 7], np.int32), [2, 3 * LONGEST_RUN + 1, 1])
    assert made.tokens_of(units).tolist() == [[3, 0, 0, 0, 0, 7], [1, 31, 31, 31, 0, 0]]


@given(UNITS)
def test_merges_with_durations_keep_the_length_of_each_token(units: np.ndarray) -> None:
    made = SEMANTIC.merged(durations=True)
    back = made.units_of(Codes(made.tokens_of(units), (320 * units.size,)))
    assert back.size == units.size
    assert np.array_equal(runs_of(back)[0], runs_of(units)[0])


@given(UNITS)
def test_without_durations_runs_share_the_clip(units: np.ndarray) -> None:
    made = SEMANTIC.merged()
    runs = runs_of(units)[0]
    back = made.units_of(Codes(made.tokens_of(units), (320 * units.size,)))
    assert back.size == units.size
    assert np.array_equal(runs_of(back)[0], runs)


def test_codes_of_a_model_have_a_length_of_their_own() -> None:
    codes = Codes(np.array([[1, 20, 3, 21]]), (4,))
    plain, timed = SEMANTIC.merged(), SEMANTIC.merged(durations=True)
    assert plain.units_of(codes).size == (1 + 2 + 1 + 3) * TYPICAL_RUN
    assert plain.decode(codes).samples.shape == (1, 14 * 320)
    said = Codes(np.array([[1, 20, 3, 21], [4, 0, 0, 5]]), (4,))
    assert timed.units_of(said).tolist() == [1] * 5 + [1, 2, 3] + [1, 1, 2, 2, 3, 3]
    with pytest.raises(ShapeError, match="durations of 14 frames"):
        timed.units_of(Codes(said.values, (320 * 13,)))


def test_a_clip_comes_back_at_its_length_in_fewer_tokens() -> None:
    wave = speech_like(20_011)
    frames = SEMANTIC.encode(wave)
    for made in (SEMANTIC.deduplicated(), SEMANTIC.merged()):
        codes = made.encode(wave)
        assert codes.grid[0] <= frames.grid[0]
        assert codes.extent == frames.extent
        assert made.num_tokens(codes.extent) is None
        assert made.decode(codes).samples.shape == (1, 20_011)
