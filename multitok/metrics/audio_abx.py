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
    groups: dict[tuple[str, str], list[Saying]] = defaultdict(list)
    for one in chosen:
        groups[one.neighbours].append(one)
    within: dict[_Cell, float] = {}
    across: dict[_Cell, float] = {}
    for neighbours, members in groups.items():
        places: dict[str, dict[str, list[int]]] = defaultdict(dict)
        for at, one in enumerate(members):
            places[one.speaker].setdefault(one.phone, []).append(at)
        cells_within, cells_across = _within(neighbours, places), _across(neighbours, places)
        if cells_within or cells_across:
            distances = dtw_distances([one.features for one in members])
            within |= {cell: _error(distances, *triple) for cell, triple in cells_within.items()}
            across |= {cell: _error(distances, *triple) for cell, triple in cells_across.items()}
    return AbxResult(_mean_error(within), _mean_error(across), len(within), len(across))


def dtw_distances(features: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Mean angle along the best path of dynamic time warping, between all of some sayings.

    Args:
        features: T of them, [n, D] floats or [n] units, n above 0.

    Returns:
        [T, T] from 0 to 1, angles over pi: 0 from each to itself, the same both ways.

    Source:
        Sakoe, Chiba 1978, "Dynamic programming algorithm optimization for spoken word recognition"; of equally good
        steps the diagonal one is taken, then the one in the second saying, as the ZeroSpeech 2021 code does.
    """
    lengths = np.array([len(row) for row in features], np.int64)
    starts = np.cumsum(lengths) - lengths
    angles = _angles(np.concatenate(list(features)))
    first, second = np.triu_indices(len(features), 1)
    order = np.argsort(lengths[first] + lengths[second], kind="stable")  # like beside like: little is filled up
    distances = np.zeros((len(features), len(features)), np.float32)
    longest = int(lengths.max())
    size = max(1, _BLOCK_ANGLES // (2 * longest**2))
    for begin in range(0, len(order), size):
        i, j = (side[order[begin : begin + size]] for side in (first, second))
        found = _mean_along_path(angles, starts[i], starts[j], lengths[i], lengths[j])
        distances[i, j] = distances[j, i] = found
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


_Triple = tuple[list[int], list[int], list[int]]  # A, B, X: places among the sayings between the same neighbours
_Places = Mapping[str, Mapping[str, list[int]]]  # by speaker and phone


def _within(neighbours: tuple[str, str], places: _Places) -> dict[_Cell, _Triple]:
    return {
        (a, b, neighbours, speaker, speaker): (phones[a], phones[b], phones[a])
        for speaker, phones in places.items()
        for a in phones
        if len(phones[a]) > 1
        for b in phones
        if b != a
    }


def _across(neighbours: tuple[str, str], places: _Places) -> dict[_Cell, _Triple]:
    return {
        (a, b, neighbours, speaker, other): (phones[a], phones[b], others[a])
        for speaker, phones in places.items()
        for other, others in places.items()
        if other != speaker
        for a in phones
        if a in others
        for b in phones
        if b != a
    }


def _error(distances: NDArray[np.float32], a: list[int], b: list[int], x: list[int]) -> float:
    """Share of a cell's triples that come out wrong."""
    same, different = distances[np.ix_(x, a)][:, :, None], distances[np.ix_(x, b)][:, None, :]
    wrong = (same > different) + (same == different) / 2
    if a is x:  # a saying is not compared with itself
        wrong = wrong[~np.eye(len(x), dtype=bool)]
    return float(wrong.mean())


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


def _angles(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Angles over pi between all rows [R, D] or units [R]; a row of zeros is at a right angle to all."""
    if rows.ndim == 1:
        return np.asarray(np.where(rows[:, None] == rows, np.float32(0), np.float32(0.5)))
    norms = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
    units = np.asarray(rows / np.where(norms > 0, norms, 1), np.float32)
    cosines = units @ units.T
    return np.asarray(np.arccos(np.clip(cosines, -1, 1, out=cosines), out=cosines) / np.float32(np.pi))


def _mean_along_path(
    angles: NDArray[np.float32],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    heights: NDArray[np.int64],
    widths: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Sum over length of the best paths of P pairs, which begin at rows `first` and columns `second` of `angles`.

    k = 0 1 2 3      cells of one i + j = k need those of k - 1 and k - 2 only,
        1 2 3 4      so all pairs and all cells of a diagonal are done at once;
        2 3 4 5      what fills up a smaller pair lies behind its end and does not show
    """
    height, width = int(heights.max()), int(widths.max())
    rows, pairs = np.arange(height), np.arange(len(first))
    sums = [np.full((height + 1, len(first)), np.inf, np.float32) for _ in range(3)]
    steps = [np.zeros((height + 1, len(first)), np.float32) for _ in range(3)]
    sums[0][0] = 0  # where every path starts: before row 0, two diagonals before k = 0
    means = np.empty(len(first), np.float32)
    for k in range(height + width - 1):
        (before, last, now), (steps_before, steps_last, steps_now) = sums, steps
        i = rows[max(0, k - width + 1) : k + 1]
        at_row = np.minimum(first + i[:, None], len(angles) - 1)
        at_column = np.minimum(second + (k - i)[:, None], len(angles) - 1)
        up, down = slice(i[0], i[-1] + 1), slice(i[0] + 1, i[-1] + 2)  # row i - 1, row i; row -1 is the first
        diagonal = (before[up] <= last[down]) & (before[up] <= last[up])
        along = last[down] <= last[up]
        now[:] = np.inf
        now[down] = np.where(diagonal, before[up], np.where(along, last[down], last[up])) + angles[at_row, at_column]
        steps_now[down] = 1 + np.where(diagonal, steps_before[up], np.where(along, steps_last[down], steps_last[up]))
        done = pairs[heights + widths - 2 == k]
        means[done] = now[heights[done], done] / steps_now[heights[done], done]
        before[0] = np.inf
        sums, steps = [last, now, before], [steps_last, steps_now, steps_before]
    return means
