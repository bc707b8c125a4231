"""Items through a tokenizer and back, and everything measured on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from multitok.checkpoint import fingerprint
from multitok.codebook import native
from multitok.errors import SpecError
from multitok.metrics.evaluation import Evaluation, ItemResult, LevelResult, Speed
from multitok.metrics.item_evaluator import ItemEvaluator, MeasuredItem, RoundTrip, Watcher, versions
from multitok.metrics.peers import PEERS, PeerResult, Peers, check_peers
from multitok.metrics.quality import Quality, measure
from multitok.metrics.rates import CodeCounts
from multitok.protocol import Modality, Tokenizer


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


class Evaluator(ItemEvaluator[NDArray[Any], Peers, "_Measured"]):
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
        super().__init__(tokenizer, name, runs, threads)
        self._peer_names, self._watch = peers, watch

    @property
    def modality(self) -> Modality:
        """Of the items."""
        return self._tokenizer.spec.modality

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
        tables = self._tables()
        return Evaluation(
            tokenizer=self._name,
            kind=spec.kind,
            fingerprint=fingerprint(self._tokenizer),
            modality=spec.modality,
            versions=versions(),
            items=tuple(one.result(tables) for one in self._measured),
            failures=tuple(self._failures),
            codebooks=self._codebook_use(tables),
            speed=self._speed(),
        )

    def _measure(self, name: str, raw: NDArray[Any], peers: Peers | None) -> _Measured:
        trip = self._round_trip(raw)
        low, peak = self.value_range(raw)
        inside = self._inside(raw)
        qualities = {k: measure(inside, back, peak=peak, low=low) for k, back in trip.decoded.items()}
        known = self.peers(raw) if peers is None else peers
        at_rate = {k: known.best(limit) for k, limit in trip.nominal_bits.items()}
        if self._watch is not None:
            self._watch(name, inside, trip.decoded, (low, peak))
        clipped_share = 0.0 if inside is raw else float((inside != raw).mean())
        return _Measured(name, trip, clipped_share, qualities, at_rate)

    def _inside(self, raw: NDArray[Any]) -> NDArray[Any]:
        """The item with a volume's values clipped to the range that PSNR refers to."""
        if self.modality is not Modality.VOLUME:
            return raw
        low, peak = self.value_range(raw)
        inside: NDArray[Any] = np.clip(raw, np.float32(low), np.float32(low + peak))
        return inside

    def _speed(self) -> Speed | None:
        if not self._runs or not self._measured:
            return None
        units = sum(one.num_units for one in self._measured)
        encode_s, decode_s = self._total_times()
        return Speed(
            encode_units_per_s=units / encode_s,
            decode_units_per_s=units / decode_s,
            runs=self._runs,
            threads=native.thread_count(self._threads),
        )


class _Measured(MeasuredItem):
    def __init__(
        self,
        name: str,
        trip: RoundTrip,
        clipped_share: float,
        qualities: Mapping[int, Quality],
        peers: Mapping[int, Mapping[str, PeerResult]],
    ) -> None:
        super().__init__(name, trip)
        self._extent, self.num_units = trip.codes.extent, int(np.prod(trip.codes.extent))
        self._clipped_share, self._qualities, self._peers = clipped_share, qualities, peers

    def result(self, tables: Sequence[CodeCounts]) -> ItemResult:
        """The item's row."""
        entropy = self.entropy_bits(tables)
        return ItemResult(
            name=self.name,
            extent=self._extent,
            num_units=self.num_units,
            clipped_share=self._clipped_share,
            encode_s=self.encode_s,
            decode_s=self.decode_s,
            levels=tuple(
                LevelResult(k, self.nominal_bits[k], float(entropy[k - 1]), quality, self._peers[k])
                for k, quality in self._qualities.items()
            ),
        )
