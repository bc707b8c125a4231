"""What the evaluations of pictures and of sound share: items to codes and back, timed, and the use of the codes."""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from multitok import __version__
from multitok.errors import CodeRangeError, InputError, MissingExtraError, ShapeError, SpecError
from multitok.metrics.evaluation import CodebookUse, Failure
from multitok.metrics.levels import level_decoders
from multitok.metrics.rates import CodeCounts
from multitok.protocol import Codes, Tokenizer

# Called with an item's name, its raw array, what came back by number of codebooks, and the values' range (low, width).
Watcher = Callable[[str, NDArray[Any], Mapping[int, NDArray[Any]], tuple[float, float]], None]

_VERSIONED = (
    "numpy",
    "torch",
    "pillow",
    "av",
    "scikit-image",
    "pytorch-msssim",
    "soxr",
    "pesq",
    "pystoi",
    "distillmos",
)
Raw = TypeVar("Raw")
KnownCodecs = TypeVar("KnownCodecs")


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """One item's way to codes and back.

    Args:
        codes: Of all codebooks.
        encode_s: Median time of one encode; None where it was not timed.
        decode_s: Median time of one decode of all codebooks.
        decoded: Number of first codebooks -> what they decode to.
        nominal_bits: Number of first codebooks -> codes times log2 of their codebook's size, padding included.
    """

    codes: Codes
    encode_s: float | None
    decode_s: float | None
    decoded: Mapping[int, Any]
    nominal_bits: Mapping[int, float]


class MeasuredItem:
    """An item before the tables of all items are known; its codes are kept as counts.

    Args:
        name: The file's.
        trip: Its way to codes and back.
    """

    def __init__(self, name: str, trip: RoundTrip) -> None:
        self.name, self.counts = name, CodeCounts.per_codebook(trip.codes)
        self.encode_s, self.decode_s = trip.encode_s, trip.decode_s
        self.nominal_bits = trip.nominal_bits

    def entropy_bits(self, tables: Sequence[CodeCounts]) -> NDArray[np.float64]:
        """Bits of the first 1 .. K codebooks, [K], after ideal entropy coding by all items' tables."""
        return np.cumsum([own.bits_under(table) for own, table in zip(self.counts, tables, strict=True)])


Measured = TypeVar("Measured", bound=MeasuredItem)


class ItemEvaluator(ABC, Generic[Raw, KnownCodecs, Measured]):
    """An evaluation item by item.

    Args:
        tokenizer: What to measure.
        name: What to call it; None takes its name inside a vocabulary.
        runs: Timed runs of each encode and decode; 0 times nothing.
        threads: Threads for the tokenizer; None leaves them as they are.

    Raises:
        SpecError: A number is none that there is.
    """

    def __init__(self, tokenizer: Tokenizer[Raw], name: str | None, runs: int, threads: int | None) -> None:
        if runs < 0 or (threads is not None and threads < 1):
            raise SpecError(f"runs={runs}, threads={threads}: give at least 0 runs and at least 1 thread")
        self._tokenizer, self._runs, self._threads = tokenizer, runs, threads
        self._name = tokenizer.spec.name if name is None else name
        self._decoders = level_decoders(tokenizer)
        self._measured: list[Measured] = []
        self._failures: list[Failure] = []

    @abstractmethod
    def _measure(self, name: str, raw: Raw, peers: KnownCodecs | None) -> Measured:
        """All figures of an item."""

    def add(self, name: str, raw: Raw, *, peers: KnownCodecs | None = None) -> Failure | None:
        """Measure one item.

        Args:
            name: What to call it.
            raw: The item.
            peers: The known codecs for this item, where another evaluation of it has them already.

        Returns:
            None, or why it could not be measured; then it is among the failures of the result too.

        Raises:
            MissingExtraError: A package of the extra `eval`, for sound `eval-audio`, is not installed.
        """
        try:
            self._measured.append(self._measure(name, raw, peers))
        except (InputError, ShapeError, CodeRangeError) as error:
            return self.fail(name, str(error))
        return None

    def fail(self, name: str, reason: str) -> Failure:
        """List an item as one that could not be measured."""
        failure = Failure(name, reason)
        self._failures.append(failure)
        return failure

    def _round_trip(self, raw: Raw) -> RoundTrip:
        """The item to codes and back, with every number of first codebooks."""
        spec = self._tokenizer.spec
        with limited_threads(self._threads):
            codes, encode_s = self._timed(self._tokenizer.encode, raw)
            whole, decode_s = self._timed(self._tokenizer.decode, codes)
            decoded = {k: whole if k == spec.num_codebooks else decode(codes) for k, decode in self._decoders.items()}
        log_sizes, positions = np.log2(spec.codebook_sizes), int(np.prod(codes.grid))
        bits = {k: float(log_sizes[:k].sum()) * positions for k in decoded}
        return RoundTrip(codes, encode_s, decode_s, decoded, bits)

    def _timed(self, action: Callable[[Any], Any], argument: Any) -> tuple[Any, float | None]:
        """What the action gives, and the median of its times; the first call warms up and is not timed."""
        outcome, times = action(argument), []
        for _ in range(self._runs):
            started = time.perf_counter()
            action(argument)
            times.append(time.perf_counter() - started)
        return outcome, statistics.median(times) if times else None

    def _tables(self) -> list[CodeCounts]:
        """How often each code occurs, codebook by codebook, over all items."""
        return [CodeCounts.joined(list(parts)) for parts in zip(*(one.counts for one in self._measured), strict=True)]

    def _codebook_use(self, tables: Sequence[CodeCounts]) -> tuple[CodebookUse, ...]:
        sizes = self._tokenizer.spec.codebook_sizes
        return tuple(
            CodebookUse(size, int(table.counts.sum()), table.usage(size), table.perplexity, table.entropy_bits)
            for table, size in zip(tables, sizes, strict=bool(tables))
        )

    def _total_times(self) -> tuple[float, float]:
        """Seconds that one encode and one decode of all items take."""
        encode_s = sum(one.encode_s or 0.0 for one in self._measured)
        return encode_s, sum(one.decode_s or 0.0 for one in self._measured)


@contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """So many threads for BLAS, torch and the native search, inside."""
    if threads is None:
        yield
        return
    try:
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        reason = "a number of threads needs threadpoolctl: pip install 'multitok[eval]'"
        raise MissingExtraError(reason, name="threadpoolctl") from error
    import torch

    before = torch.get_num_threads()
    with threadpool_limits(threads):
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def versions() -> dict[str, str]:
    """Package -> version of what figures depend on, of those installed."""
    found = {"multitok": __version__}
    for package in _VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
