"""ABX: is a phone nearer to another saying of itself than to another phone? Lower is better, 50% is chance.

Shape letters: n frames of a saying, D features, P pairs of sayings.

    A and X say one phone, B another, all three between the same two neighbours: "b a t" and "b i t".
    within speakers   A, B and X come from one speaker
    across speakers   X comes from another than A and B
    error             share of triples with d(A, X) > d(B, X), a tie counting half

d is the mean angle along the best path of dynamic time warping: the path with the least sum of angles (steps of one
frame in either or both, over pi), divided by its length. Errors are averaged over the triples of a cell (two phones
in order, neighbours, speakers), then over neighbours, then over speakers, then over pairs of phones; so frequent
phones and talkative speakers count no more than others.

Sayings of quantised speech are rows of units: units that differ are at a right angle to each other, as one-hot
vectors are; or give code vectors, which know which units are alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, ShapeError
from multitok.protocol import Json

# Sayings of one phone by one speaker between the same neighbours; more add time and little else.
MAX_SAYINGS = 8
# Angles that are held at once.
_BLOCK_ANGLES = 2**22
_Cell = tuple[str, str, tuple[str, str], str, str]  # phone of A and X, phone of B, neighbours, speaker, X's speaker


@dataclass(frozen=True, slots=True, eq=False)
class Saying:
    """One phone between its neighbours, as somebody said it.

    Args:
        features: [n, D] floats, or [n] units; the frames of the phone and, by custom, of its neighbours.
        phone: The phone in the middle.
        neighbours: The phones before and after.
        speaker: Who said it.
    """

    features: NDArray[Any]
    phone: str
    neighbours: tuple[str, str]
    speaker: str


@dataclass(frozen=True, slots=True)
class AbxResult:
    """Errors from 0 to 1; None where the sayings hold no triple of the kind.

    Args:
        within: Within speakers.
        across: Across speakers.
        num_within: Cells that were compared within speakers.
        num_across: The same across.
    """

    within: float | None
    across: float | None
    num_within: int
    num_across: int

    def to_json(self) -> dict[str, Json]:
        """The errors as JSON values."""
        return {
            "within": self.within,
            "across": self.across,
            "num_within": self.num_within,
            "num_across": self.num_across,
        }


def abx(sayings: Iterable[Saying], *, max_sayings: int = MAX_SAYINGS, seed: int = 0) -> AbxResult:
    """ABX errors within and across speakers.

    Args:
        sayings: Phones between neighbours, of all speakers; all features alike.
        max_sayings: Of one phone, neighbours and speaker so many are compared, chosen by `seed`.
        seed: Of that choice; the result depends on it and on the sayings in their order.

    Returns:
        The errors and the number of cells behind them.

    Raises:
        ShapeError: A saying has no frame, or features of another kind than the first.
        InputError: `max_sayings` is below 2.

    Source:
        Schatz et al. 2013, "Evaluating speech features with the minimal-pair ABX task"; distance and averages as in
        the ZeroSpeech 2021 challenge, Nguyen et al. 2020, "The Zero Resource Speech Benchmark 2021".
    """
    if max_sayings < 2:
        raise InputError(
            f"max_sayings={max_sayings}: a phone is compared with another saying of itself, give 2 or more"
        )
    chosen = _chosen(list(sayings), max_sayings, seed)
    _check([one.features for one in chosen])
    groups: dict[tuple[str, str], dict[str, dict[str, list[int]]]] = defaultdict(lambda: defaultdict(dict))
    for at, one in enumerate(chosen):
        groups[one.neighbours][one.speaker].setdefault(one.phone, []).append(at)
    cells = {
        kind: dict(item for neighbours, by_speaker in groups.items() for item in find(neighbours, by_speaker))
        for kind, find in (("within", _within), ("across", _across))
    }
    pairs = sorted({pair for kind in cells.values() for members in kind.values() for pair in _pairs(*members)})
    distances = dict(zip(pairs, dtw_distances([one.features for one in chosen], pairs), strict=True))
    found = {kind: {cell: _error(*members, distances) for cell, members in cells[kind].items()} for kind in cells}
    return AbxResult(
        within=_mean_error(found["within"]),
        across=_mean_error(found["across"]),
        num_within=len(found["within"]),
        num_across=len(found["across"]),
    )


def dtw_distances(features: Sequence[NDArray[Any]], pairs: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Mean angle along the best path of dynamic time warping, for many pairs at once.

    Args:
        features: [n, D] floats or [n] units each, n above 0.
        pairs: Indices into `features`.

    Returns:
        [P] from 0 to 1: angles over pi.

    Source:
        Sakoe, Chiba 1978, "Dynamic programming algorithm optimization for spoken word recognition"; of equally good
        steps the diagonal one is taken, then the one in the second saying, as the ZeroSpeech 2021 code does.
    """
    rows = [_unit_length(row) for row in features]
    lengths = np.array([len(row) for row in rows], np.int64)
    ends = lengths[np.asarray(pairs, np.int64).reshape(-1, 2)]
    # Pairs of like shape go together, so that little is filled up.
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    distances = np.empty(len(pairs))
    start = 0
    while start < len(order):
        stop = start + 1
        height, width = ends[order[start]]
        while stop < len(order):
            taller, wider = np.maximum((height, width), ends[order[stop]])
            if (stop + 1 - start) * taller * wider > _BLOCK_ANGLES or taller > height + 2 or wider > width + 8:
                break
            height, width, stop = taller, wider, stop + 1
        block = order[start:stop]
        angles = _angles(rows, [pairs[at] for at in block], int(height), int(width))
        distances[block] = _mean_along_path(angles, ends[block])
        start = stop
    return distances


def _chosen(sayings: list[Saying], most: int, seed: int) -> list[Saying]:
    """At most so many of a kind, in the order given."""
    kinds: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for at, one in enumerate(sayings):
        kinds[one.neighbours, one.phone, one.speaker].append(at)
    rng = np.random.default_rng(seed)
    kept: list[int] = []
    for members in kinds.values():
        kept += members if len(members) <= most else rng.choice(members, most, replace=False).tolist()
    return [sayings[at] for at in sorted(kept)]


def _check(features: Sequence[NDArray[Any]]) -> None:
    for row in features:
        alike = row.ndim == features[0].ndim and row.shape[1:] == features[0].shape[1:] and len(row) > 0
        if not alike or row.ndim not in (1, 2) or (row.ndim == 1) != np.issubdtype(row.dtype, np.integer):
            raise ShapeError(
                f"a saying of {row.dtype} {list(row.shape)} beside one of {list(features[0].shape)}: "
                "give floats [n, D] with one D, or integers [n], n above 0"
            )


_Members = tuple[Sequence[int], Sequence[int], Sequence[int]]  # A, B, X: places among the sayings
_BySpeaker = Mapping[str, Mapping[str, Sequence[int]]]


def _within(neighbours: tuple[str, str], by_speaker: _BySpeaker) -> list[tuple[_Cell, _Members]]:
    return [
        ((a, b, neighbours, speaker, speaker), (phones[a], phones[b], phones[a]))
        for speaker, phones in by_speaker.items()
        for a in phones
        if len(phones[a]) > 1
        for b in phones
        if b != a
    ]


def _across(neighbours: tuple[str, str], by_speaker: _BySpeaker) -> list[tuple[_Cell, _Members]]:
    return [
        ((a, b, neighbours, speaker, other), (phones[a], phones[b], others[a]))
        for speaker, phones in by_speaker.items()
        for other, others in by_speaker.items()
        if other != speaker
        for a in phones
        if a in others
        for b in phones
        if b != a
    ]


def _pairs(a: Sequence[int], b: Sequence[int], x: Sequence[int]) -> list[tuple[int, int]]:
    return [(min(one, other), max(one, other)) for one in x for other in (*a, *b) if one != other]


def _error(a: Sequence[int], b: Sequence[int], x: Sequence[int], distances: Mapping[tuple[int, int], float]) -> float:
    """Share of a cell's triples that come out wrong."""

    def between(others: Sequence[int], one: int) -> NDArray[np.float64]:
        return np.array([distances[min(one, other), max(one, other)] for other in others if other != one])

    wrong, count = 0.0, 0
    for one in x:
        same, different = between(a, one)[:, None], between(b, one)[None, :]
        wrong += float((same > different).sum()) + float((same == different).sum()) / 2
        count += same.size * different.size
    return wrong / count


def _mean_error(errors: Mapping[_Cell, float]) -> float | None:
    """Mean over neighbours, then speakers, then pairs of phones."""
    steps: list[Callable[[tuple[Any, ...]], tuple[Any, ...]]] = [
        lambda key: (key[0], key[1], key[3], key[4]),
        lambda key: (key[0], key[1], key[2]),
        lambda key: (key[0], key[1]),
        lambda key: (),
    ]
    found: dict[tuple[Any, ...], float] = dict(errors)
    for coarser in steps:
        parts: dict[tuple[Any, ...], list[float]] = defaultdict(list)
        for key, value in found.items():
            parts[coarser(key)].append(value)
        found = {key: sum(values) / len(values) for key, values in parts.items()}
    return found.get(())


def _unit_length(row: NDArray[Any]) -> NDArray[Any]:
    """Rows of length 1; a row of zeros stays so, and is at a right angle to all. Units stay as they are."""
    if row.ndim == 1:
        return row
    wide = row.astype(np.float64)
    norms = np.sqrt((wide**2).sum(axis=1, keepdims=True))
    return np.asarray(wide / np.where(norms > 0, norms, 1), np.float32)


def _angles(
    rows: Sequence[NDArray[Any]], pairs: Sequence[tuple[int, int]], height: int, width: int
) -> NDArray[np.float32]:
    """Angles over pi, [height, width, P], of what each pair has there; beyond it, anything."""
    first, second = (_padded([rows[pair[side]] for pair in pairs], n) for side, n in ((0, height), (1, width)))
    if first.ndim == 2:
        angles = np.where(first[:, :, None] == second[:, None, :], np.float32(0), np.float32(0.5))
    else:
        cosines = np.clip(np.matmul(first, second.transpose(0, 2, 1)), -1, 1)
        angles = np.arccos(cosines, dtype=np.float32) / np.float32(np.pi)
    return np.ascontiguousarray(angles.transpose(1, 2, 0))


def _padded(rows: Sequence[NDArray[Any]], length: int) -> NDArray[Any]:
    padded = np.zeros((len(rows), length, *rows[0].shape[1:]), rows[0].dtype)
    for at, row in enumerate(rows):
        padded[at, : len(row)] = row
    return padded


def _mean_along_path(angles: NDArray[np.float32], ends: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum over length of each pair's best path, from angles [height, width, P]; `ends` [P, 2] are the true sizes.

    A path's sum at (i, j) looks at what lies before only, so what fills up a smaller pair does not show.
    """
    height, width, num_pairs = angles.shape
    sums = np.empty((height, width, num_pairs))
    steps = np.empty((height, width, num_pairs), np.int32)
    sums[:, 0], sums[0, :] = np.cumsum(angles[:, 0], axis=0, dtype=np.float64), np.cumsum(angles[0], 0, np.float64)
    steps[:, 0], steps[0, :] = np.arange(1, height + 1)[:, None], np.arange(1, width + 1)[:, None]
    for i in range(1, height):
        for j in range(1, width):
            both, second, first = sums[i - 1, j - 1], sums[i, j - 1], sums[i - 1, j]
            diagonal = (both <= second) & (both <= first)
            along = second <= first
            sums[i, j] = angles[i, j] + np.where(diagonal, both, np.where(along, second, first))
            steps[i, j] = 1 + np.where(diagonal, steps[i - 1, j - 1], np.where(along, steps[i, j - 1], steps[i - 1, j]))
    last = ends[:, 0] - 1, ends[:, 1] - 1, np.arange(num_pairs)
    return np.asarray(sums[last] / steps[last])
