"""Measures of units: against slow and obvious references, and against cases known beforehand."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from multitok.errors import InputError, ShapeError
from multitok.metrics.audio_abx import Saying, abx, dtw_distances
from multitok.metrics.audio_units import cluster_purity, phone_purity, pnmi, run_lengths, speaker_nmi, unit_rates


def slow_information(units: list[int], labels: list[str]) -> float:
    """I / H, term by term."""
    total = len(units)
    unit, label, both = Counter(units), Counter(labels), Counter(zip(units, labels, strict=True))
    information = sum(n / total * math.log(n * total / (unit[u] * label[y])) for (u, y), n in both.items())
    return information / -sum(n / total * math.log(n / total) for n in label.values())


def slow_purity(units: list[int], labels: list[str]) -> float:
    best = {u: Counter(y for v, y in zip(units, labels, strict=True) if v == u).most_common(1)[0][1] for u in units}
    return sum(best.values()) / len(units)


frames = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("aeiou")), min_size=2, max_size=60)


@given(frames)
def test_counting_is_as_the_definitions_say(pairs: list[tuple[int, str]]) -> None:
    units, phones = [u for u, _ in pairs], [y for _, y in pairs]
    assert phone_purity(units, phones) == pytest.approx(slow_purity(units, phones))
    assert cluster_purity(units, phones) == pytest.approx(slow_purity(phones, units))  # type: ignore[arg-type]
    if len(set(phones)) > 1:
        assert pnmi(units, phones) == pytest.approx(slow_information(units, phones), abs=1e-9)
        assert speaker_nmi(units, phones) == pnmi(units, phones)


def test_units_that_tell_all_and_nothing() -> None:
    phones = np.array(["a", "b", "c"] * 100)
    assert pnmi(np.arange(300) % 3, phones) == pytest.approx(1)
    assert pnmi(np.zeros(300, int), phones) == 0
    assert pnmi(np.repeat(np.arange(100), 3), phones) == pytest.approx(0, abs=1e-12)
    assert phone_purity(np.zeros(300, int), phones) == pytest.approx(1 / 3)
    assert cluster_purity(np.zeros(300, int), phones) == 1


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"units \[3\] and phones \[2\]"):
        pnmi([1, 2, 3], ["a", "b"])
    with pytest.raises(ShapeError, match="one of each"):
        phone_purity([], [])
    with pytest.raises(InputError, match="one of the speakers only"):
        speaker_nmi([1, 2], ["x", "x"])
    with pytest.raises(ShapeError, match="rows of units"):
        unit_rates([np.zeros(0, int)], codebook_size=4, frame_rate_hz=50)


def test_rates_before_and_after_dedup() -> None:
    rates = unit_rates([np.array([3, 3, 3, 1]), np.array([1, 0, 0, 0])], codebook_size=8, frame_rate_hz=50)
    assert (rates.num_frames, rates.usage) == (8, 3 / 8)
    assert rates.nominal_bps == 150
    bits = -(6 / 8) * math.log2(3 / 8) - (2 / 8) * math.log2(2 / 8)
    assert rates.entropy_bits == pytest.approx(bits)
    assert rates.entropy_bps == pytest.approx(50 * bits)
    assert rates.perplexity == pytest.approx(2**bits)
    # runs 3 1 | 1 0 with lengths 3 1 1 3: half of the frames go, 1.5 bits a unit, 1 bit a length
    assert rates.dedup_rate == 0.5
    assert rates.units_per_s == 25
    assert rates.dedup_bps == pytest.approx(25 * 1.5)
    assert rates.dedup_durations_bps == pytest.approx(25 * 2.5)
    assert rates.to_json()["dedup_rate"] == 0.5


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_runs_are_those_of_itertools(units: list[int]) -> None:
    kept, lengths = run_lengths(np.array(units))
    runs = [(unit, len(list(run))) for unit, run in itertools.groupby(units)]
    assert list(zip(kept.tolist(), lengths.tolist(), strict=True)) == runs


def slow_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Every cell's best sum and number of steps, by recursion's definition."""
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for i, j in itertools.product(range(len(a)), range(len(b))):
        cosine = a[i] @ b[j] / np.linalg.norm(a[i]) / np.linalg.norm(b[j])
        angle = math.acos(min(1.0, max(-1.0, float(cosine)))) / math.pi
        before = [best[step] for step in ((i - 1, j - 1), (i, j - 1), (i - 1, j)) if step in best]
        least = min(before, key=lambda one: one[0]) if before else (0.0, 0)
        best[i, j] = (angle + least[0], least[1] + 1)
    total, steps = best[len(a) - 1, len(b) - 1]
    return total / steps


def sayings(seed: int, count: int) -> list[Saying]:
    rng = np.random.default_rng(seed)
    centres = {phone: rng.normal(size=6) for phone in "aei"}
    made = []
    for _ in range(count):
        phone, neighbours, speaker = rng.choice(list("aei")), rng.choice(["bt", "st"]), rng.choice(["x", "y", "z"])
        noise = rng.normal(size=(rng.integers(1, 9), 6))
        made.append(Saying(centres[phone] + 1.2 * noise, str(phone), tuple(neighbours), str(speaker)))
    return made


def test_distances_are_those_of_the_slow_reference() -> None:
    features = [one.features for one in sayings(1, 12)]
    found = dtw_distances(features)
    assert np.array_equal(found, found.T)
    for i, j in itertools.combinations(range(12), 2):
        assert found[i, j] == pytest.approx(slow_distance(features[i], features[j]), abs=1e-5)
    assert not found.diagonal().any()


def slow_abx(tokens: list[Saying], across: bool) -> float:
    """Every triple by itself, and means step by step."""
    cells: dict[tuple[str, ...], list[float]] = {}
    for a, b, x in itertools.permutations(range(len(tokens)), 3):
        one, other, third = tokens[a], tokens[b], tokens[x]
        if not one.phone == third.phone != other.phone or not one.neighbours == other.neighbours == third.neighbours:
            continue
        if one.speaker != other.speaker or (one.speaker != third.speaker) != across:
            continue
        order_a, order_b = sorted((a, x)), sorted((b, x))
        same = slow_distance(tokens[order_a[0]].features, tokens[order_a[1]].features)
        different = slow_distance(tokens[order_b[0]].features, tokens[order_b[1]].features)
        key = (one.phone + other.phone, one.speaker, third.speaker, "".join(one.neighbours))
        cells.setdefault(key, []).append(float(same > different))
    means = {key: float(np.mean(values)) for key, values in cells.items()}
    for length in (3, 2, 1, 0):
        heads = {key[:length] for key in means}
        means = {head: float(np.mean([v for key, v in means.items() if key[:length] == head])) for head in heads}
    return means[()]


def test_errors_are_those_of_the_slow_reference() -> None:
    tokens = sayings(2, 40)
    found = abx(tokens, max_sayings=40)
    assert found.within == pytest.approx(slow_abx(tokens, across=False), abs=1e-9)
    assert found.across == pytest.approx(slow_abx(tokens, across=True), abs=1e-9)
    assert 0 < found.across < 0.5
    assert found.num_across > found.num_within > 0


def test_sayings_are_chosen_by_the_seed() -> None:
    tokens = sayings(3, 120)
    assert abx(tokens, max_sayings=3, seed=1) == abx(tokens, max_sayings=3, seed=1)
    assert abx(tokens, max_sayings=3, seed=1) != abx(tokens, max_sayings=3, seed=2)


def test_units_are_one_hot_vectors() -> None:
    rng = np.random.default_rng(4)
    units = [rng.integers(0, 4, rng.integers(2, 7)) for _ in range(10)]
    assert dtw_distances(units) == pytest.approx(dtw_distances([np.eye(4)[row] for row in units]))
    same = [Saying(np.array(row), phone, ("b", "t"), "x") for row, phone in (([1], "a"), ([1], "a"), ([1], "i"))]
    assert abx(same).within == 0.5  # all alike: a tie counts half
    apart = [
        Saying(np.array(row), phone, ("b", "t"), "x") for row, phone in (([1, 2], "a"), ([1, 2, 2], "a"), ([3], "i"))
    ]
    assert (abx(apart).within, abx(apart).across, abx(apart).num_across) == (0, None, 0)


def test_frames_of_nothing_are_far_from_all() -> None:
    assert dtw_distances([np.zeros((2, 3)), np.ones((3, 3)), np.zeros((1, 3))])[0].tolist() == [0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([np.zeros((2, 3)), np.zeros((2, 4))], "with one D"),
        ([np.zeros((2, 3)), np.zeros((0, 3))], "n above 0"),
        ([np.zeros(3), np.zeros(3)], r"integers \[n\]"),
    ],
)
def test_sayings_that_do_not_go_together_are_refused(rows: list[NDArray[np.float64]], words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        abx([Saying(row, "a", ("b", "t"), "x") for row in rows])
    with pytest.raises(InputError, match="2 or more"):
        abx([], max_sayings=1)
