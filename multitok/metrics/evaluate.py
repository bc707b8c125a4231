"""Items through a tokenizer and back, and everything measured on the way."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from multitok import __version__
from multitok.checkpoint import fingerprint
from multitok.codebook import native
from multitok.errors import CodeRangeError, InputError, MissingExtraError, ShapeError, SpecError
from multitok.metrics.evaluation import CodebookUse, Evaluation, Failure, ItemResult, LevelResult, Speed
from multitok.metrics.levels import level_decoders
from multitok.metrics.peers import PEERS, PeerResult, Peers, check_peers
from multitok.metrics.quality import Quality, measure
from multitok.metrics.rates import CodeCounts
from multitok.protocol import Codes, Modality, Tokenizer

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


@runtime_checkable
class Windowed(Protocol):
    """A tokenizer of volumes that covers a range of intensities only."""

    @property
    def window(self) -> tuple[float, float]:
        """(low, high); what lies outside is clipped."""


def evaluate(
    tokenizer: Tokenizer[Any],
    items: Mapping[str, NDArray[Any]] | Iterable[tuple[str, NDArray[Any]]],
    *,
    name: str | None = None,
    peers: Sequence[str] | None = None,
    runs: int = 3,
    threads: int | None = None,
    watch: Watcher | None = None,
) -> Evaluation:
    """Measure a tokenizer on raw items; one that it refuses is listed, and the others go on.

    Args:
        tokenizer: Of images, videos or volumes.
        items: Name -> raw array, or pairs of them, taken one by one.
        name: What to call the tokenizer; None takes its name inside a vocabulary.
        peers: Known codecs to run beside it, from `PEERS`; None runs all of the modality, () none.
        runs: Timed runs of each encode and decode; 0 times nothing.
        threads: Threads for the tokenizer; None leaves them as they are.
        watch: Called with every item and what came back of it.

    Returns:
        Rows, means, use of the codebooks and speed.

    Raises:
        SpecError: The tokenizer is of another modality, or a codec is unknown.
        MissingExtraError: A package of the extra `eval` is not installed.
    """
    evaluator = Evaluator(tokenizer, name=name, peers=peers, runs=runs, threads=threads, watch=watch)
    for key, raw in items.items() if isinstance(items, Mapping) else items:
        evaluator.add(key, raw)
    return evaluator.result()


class Evaluator:
    """The same item by item, for whoever reads files and knows of those that cannot be read.

    Args:
        tokenizer: As for `evaluate`.
        name: As for `evaluate`.
        peers: As for `evaluate`.
        runs: As for `evaluate`.
        threads: As for `evaluate`.
        watch: As for `evaluate`.

    Raises:
        SpecError: As for `evaluate`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer[Any],
        *,
        name: str | None = None,
        peers: Sequence[str] | None = None,
        runs: int = 3,
        threads: int | None = None,
        watch: Watcher | None = None,
    ) -> None:
        spec = tokenizer.spec
        if spec.modality not in PEERS:
            raise SpecError(f"{spec.kind!r} is for {spec.modality}: an evaluation takes {', '.join(PEERS)}")
        check_peers(spec.modality, peers)
        if runs < 0 or (threads is not None and threads < 1):
            raise SpecError(f"runs={runs}, threads={threads}: give at least 0 runs and at least 1 thread")
        self._tokenizer, self._peer_names, self._runs, self._threads, self._watch = (
            tokenizer, peers, runs, threads, watch,
        )  # fmt: skip
        self._name = spec.name if name is None else name
        self._decoders = level_decoders(tokenizer)
        self._measured: list[_Measured] = []
        self._failures: list[Failure] = []

    @property
    def modality(self) -> Modality:
        """Of the items."""
        return self._tokenizer.spec.modality

    def add(self, name: str, raw: NDArray[Any], *, peers: Peers | None = None) -> Failure | None:
        """Measure one item.

        Args:
            name: What to call it.
            raw: The item.
            peers: The known codecs for this item, where another evaluation of it has them already.

        Returns:
            None, or why it could not be measured; then it is among the failures of the result too.

        Raises:
            MissingExtraError: A package of the extra `eval` is not installed.
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

    def peers(self, raw: NDArray[Any]) -> Peers:
        """The known codecs for an item, to be shared by evaluations of it that have the same `value_range`."""
        low, peak = self.value_range(raw)
        return Peers(self._inside(raw), self.modality, self._peer_names, low=low, peak=peak)

    def value_range(self, raw: NDArray[Any]) -> tuple[float, float]:
        """Least value and width of the range that PSNR refers to: 0 and 255, or the window of volumes."""
        if self.modality is not Modality.VOLUME:
            return 0.0, 255.0
        if isinstance(self._tokenizer, Windowed):
            low, high = self._tokenizer.window
        else:
            low, high = float(raw.min()), float(raw.max())
        return low, high - low if high > low else 1.0

    def result(self) -> Evaluation:
        """What was found so far."""
        spec = self._tokenizer.spec
        tables = [CodeCounts.joined(list(parts)) for parts in zip(*(one.counts for one in self._measured), strict=True)]
        return Evaluation(
            tokenizer=self._name,
            kind=spec.kind,
            fingerprint=fingerprint(self._tokenizer),
            modality=spec.modality,
            versions=versions(),
            items=tuple(one.result(tables) for one in self._measured),
            failures=tuple(self._failures),
            codebooks=tuple(
                CodebookUse(size, int(table.counts.sum()), table.usage(size), table.perplexity, table.entropy_bits)
                for table, size in zip(tables, spec.codebook_sizes, strict=bool(tables))
            ),
            speed=self._speed(),
        )

    def _measure(self, name: str, raw: NDArray[Any], peers: Peers | None) -> _Measured:
        with limited_threads(self._threads):
            codes, encode_s = self._timed(self._tokenizer.encode, raw)
            whole, decode_s = self._timed(self._tokenizer.decode, codes)
            last = self._tokenizer.spec.num_codebooks
            decoded = {k: whole if k == last else decode(codes) for k, decode in self._decoders.items()}
        low, peak = self.value_range(raw)
        inside = self._inside(raw)
        qualities = {k: measure(inside, back, peak=peak, low=low) for k, back in decoded.items()}
        positions = int(np.prod(codes.grid))
        log_sizes = np.log2(self._tokenizer.spec.codebook_sizes)
        bits = {k: float(log_sizes[:k].sum()) * positions for k in decoded}
        known = self.peers(raw) if peers is None else peers
        at_rate = {k: known.best(limit) for k, limit in bits.items()}
        if self._watch is not None:
            self._watch(name, inside, decoded, (low, peak))
        clipped_share = 0.0 if inside is raw else float((inside != raw).mean())
        return _Measured(name, codes, encode_s, decode_s, clipped_share, qualities, bits, at_rate)

    def _inside(self, raw: NDArray[Any]) -> NDArray[Any]:
        """The item with a volume's values clipped to the range that PSNR refers to."""
        if self.modality is not Modality.VOLUME:
            return raw
        low, peak = self.value_range(raw)
        inside: NDArray[Any] = np.clip(raw, np.float32(low), np.float32(low + peak))
        return inside

    def _timed(self, action: Callable[[Any], Any], argument: Any) -> tuple[Any, float | None]:
        """What the action gives, and the median of its times; the first call warms up and is not timed."""
        outcome, times = action(argument), []
        for _ in range(self._runs):
            started = time.perf_counter()
            action(argument)
            times.append(time.perf_counter() - started)
        return outcome, statistics.median(times) if times else None

    def _speed(self) -> Speed | None:
        if not self._runs or not self._measured:
            return None
        units = sum(one.num_units for one in self._measured)
        return Speed(
            encode_units_per_s=units / sum(one.encode_s or 0.0 for one in self._measured),
            decode_units_per_s=units / sum(one.decode_s or 0.0 for one in self._measured),
            runs=self._runs,
            threads=native.thread_count(self._threads),
        )


class _Measured:
    """An item's figures before the tables of all items are known; its codes are kept as counts."""

    def __init__(
        self,
        name: str,
        codes: Codes,
        encode_s: float | None,
        decode_s: float | None,
        clipped_share: float,
        qualities: Mapping[int, Quality],
        bits: Mapping[int, float],
        peers: Mapping[int, Mapping[str, PeerResult]],
    ) -> None:
        self.counts = CodeCounts.per_codebook(codes)
        self.num_units = int(np.prod(codes.extent))
        self.encode_s, self.decode_s = encode_s, decode_s
        self._name, self._extent, self._clipped_share = name, codes.extent, clipped_share
        self._qualities, self._bits, self._peers = qualities, bits, peers

    def result(self, tables: Sequence[CodeCounts]) -> ItemResult:
        """The item's row."""
        entropy = np.cumsum([own.bits_under(table) for own, table in zip(self.counts, tables, strict=True)])
        return ItemResult(
            name=self._name,
            extent=self._extent,
            num_units=self.num_units,
            clipped_share=self._clipped_share,
            encode_s=self.encode_s,
            decode_s=self.decode_s,
            levels=tuple(
                LevelResult(k, self._bits[k], float(entropy[k - 1]), quality, self._peers[k])
                for k, quality in self._qualities.items()
            ),
        )


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
