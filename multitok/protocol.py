"""The common discrete-ID interface: what every tokenizer takes, returns and promises.

Shape letters: K codebooks, grid = one size per grid axis, n = raw size along one axis.

A tokenizer turns one raw item into `Codes`: integers [K, *grid], codebook k's in [0, codebook_sizes[k]).
It is immutable, so it can be shared by threads and rebuilt anywhere from `get_config()` and `get_tensors()`.
`encode_batch` equals a loop over `encode` bit for bit; `decode` inverts exactly where `spec.lossless`.

This module holds no framework: importing it costs NumPy and nothing else.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CodeRangeError, InputError, ShapeError, SpecError

if TYPE_CHECKING:
    from typing_extensions import Self

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Raw = TypeVar("Raw")

MAX_CODEBOOK_SIZE = 2**31 - 1


class Modality(str, enum.Enum):
    """What a raw item is; the value is the word used in files, tokens and on the command line.

    | member   | raw type                | grid axes       |
    |----------|-------------------------|-----------------|
    | TEXT     | `str`                   | ("t",)          |
    | IMAGE    | uint8 [H, W, 3]         | ("h", "w")      |
    | VIDEO    | uint8 [T, H, W, 3]      | ("t", "h", "w") |
    | VOLUME   | float32 [Z, Y, X]       | ("z", "y", "x") |
    | AUDIO    | `Waveform`              | ("t",)          |
    | SERIES   | float32 [N, C]          | ("t", "c")      |
    | SEQUENCE | `str` (DNA, protein)    | ("t",)          |
    """

    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"
    VOLUME = "volume"
    AUDIO = "audio"
    SERIES = "series"
    SEQUENCE = "sequence"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSpec:
    """What a tokenizer's codes look like: all that a vocabulary, a shard or a model needs to know of it.

    Args:
        kind: Registry key; names an ID format for ever ("image-patch").
        name: Unique inside a vocabulary ("image").
        modality: What the raw items are.
        codebook_sizes: Size of each of the K codebooks.
        grid_axes: One name per axis of the codes' grid, ("h", "w").
        stride: Raw units (pixels, frames, samples, characters) per grid step, one per axis;
            0 where the content decides (text BPE).
        sample_rate_hz: Rate of the raw signal (audio); None elsewhere.
        lossless: `decode(encode(raw))` equals `raw` exactly.

    Raises:
        SpecError: A field is empty, negative or does not fit the others.
    """

    kind: str
    name: str
    modality: Modality
    codebook_sizes: tuple[int, ...]
    grid_axes: tuple[str, ...]
    stride: tuple[int, ...]
    sample_rate_hz: int | None = None
    lossless: bool = False

    def __post_init__(self) -> None:
        for field in ("kind", "name"):
            value = getattr(self, field)
            if not isinstance(value, str) or not value or any(c.isspace() or c in "<>|/" for c in value):
                raise SpecError(f"{field}={value!r}: give a word without spaces, '<', '>', '|' or '/'")
        object.__setattr__(self, "modality", Modality(self.modality))
        if not self.codebook_sizes or not all(1 <= size <= MAX_CODEBOOK_SIZE for size in self.codebook_sizes):
            raise SpecError(f"codebook_sizes={self.codebook_sizes}: give at least one size, each from 1 to 2^31 - 1")
        if not self.grid_axes or len(set(self.grid_axes)) != len(self.grid_axes):
            raise SpecError(f"grid_axes={self.grid_axes}: give at least one axis name, each once")
        if len(self.stride) != len(self.grid_axes) or not all(step >= 0 for step in self.stride):
            raise SpecError(f"stride={self.stride}: give one number >= 0 for each of the axes {self.grid_axes}")
        if self.sample_rate_hz is not None and self.sample_rate_hz <= 0:
            raise SpecError(f"sample_rate_hz={self.sample_rate_hz}: give a rate above 0, or None")

    @property
    def num_codebooks(self) -> int:
        """K: codebooks per grid position."""
        return len(self.codebook_sizes)

    @property
    def bits_per_position(self) -> float:
        """Nominal bits of one grid position: the sum of log2 of the codebook sizes."""
        return float(np.log2(self.codebook_sizes).sum())

    def full_extent(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Raw size that a grid covers when nothing was padded; the grid itself where the content decides."""
        return tuple(n * step if step else n for n, step in zip(grid, self.stride, strict=True))

    def check(self, codes: Codes) -> None:
        """Raise unless `codes` could have come from a tokenizer of this specification.

        Raises:
            ShapeError: The number of codebooks or of grid axes differs.
            CodeRangeError: A code lies outside its codebook.
        """
        if codes.num_codebooks != self.num_codebooks or len(codes.grid) != len(self.grid_axes):
            raise ShapeError(
                f"codes of shape {list(codes.values.shape)} given to {self.kind!r}, which has "
                f"{self.num_codebooks} codebooks over the axes {self.grid_axes}: "
                f"give [{', '.join([str(self.num_codebooks), *self.grid_axes])}]"
            )
        if codes.values.size == 0:
            return
        axes = tuple(range(1, codes.values.ndim))
        low, high = codes.values.min(axis=axes), codes.values.max(axis=axes)
        for k, size in enumerate(self.codebook_sizes):
            if low[k] < 0 or high[k] >= size:
                bad = int(low[k] if low[k] < 0 else high[k])
                raise CodeRangeError(
                    f"code {bad} in codebook {k} of {self.kind!r}: allowed are 0 to {size - 1}; "
                    "these codes come from another tokenizer, or IDs were not mapped back to codes"
                )

    def to_json(self) -> dict[str, Json]:
        """The specification as JSON values; `from_json` inverts it."""
        return {
            "kind": self.kind,
            "name": self.name,
            "modality": self.modality.value,
            "codebook_sizes": list(self.codebook_sizes),
            "grid_axes": list(self.grid_axes),
            "stride": list(self.stride),
            "sample_rate_hz": self.sample_rate_hz,
            "lossless": self.lossless,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TokenizerSpec:
        """Rebuild a specification from what `to_json` returned.

        Raises:
            SpecError: A field is missing, unknown or cannot be.
        """
        try:
            return cls(
                **{
                    **data,
                    "modality": Modality(data["modality"]),
                    "codebook_sizes": tuple(data["codebook_sizes"]),
                    "grid_axes": tuple(data["grid_axes"]),
                    "stride": tuple(data["stride"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SpecError(f"not a tokenizer specification: {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """One item's codes and the raw size they stand for.

    Args:
        values: [K, *grid] integers; held as int32, read-only.
        extent: Raw size along each grid axis, so that decode crops its padding exactly.

    Raises:
        ShapeError: `values` has no grid axis, is not integral, or `extent` has another rank.
        CodeRangeError: A value lies outside int32.
    """

    values: NDArray[np.int32]
    extent: tuple[int, ...]

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if values.ndim < 2 or values.shape[0] < 1 or not np.issubdtype(values.dtype, np.integer):
            raise ShapeError(
                f"codes of shape {list(values.shape)} and dtype {values.dtype}: give integers [K, *grid], K >= 1"
            )
        if len(self.extent) != values.ndim - 1 or any(n < 0 for n in self.extent):
            raise ShapeError(
                f"extent {self.extent} for a grid of shape {list(values.shape[1:])}: give one size >= 0 per grid axis"
            )
        if values.dtype != np.int32:
            if values.size and (values.min() < -(2**31) or values.max() >= 2**31):
                raise CodeRangeError(f"codes reach {values.max()}: codes are int32, below {2**31}")
            values = values.astype(np.int32)
        values = values.view()
        values.flags.writeable = False
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "extent", tuple(int(n) for n in self.extent))

    @classmethod
    def join(cls, parts: Iterable[Codes]) -> Codes:
        """The codes of an item from those of its pieces, cut along the first grid axis (time).

        Args:
            parts: In order, at least one, as a stream gives them.

        Returns:
            One `Codes`.

        Raises:
            InputError: There is no part.
        """
        parts = list(parts)
        if not parts:
            raise InputError("no parts: give the codes of at least one piece")
        first = sum(part.extent[0] for part in parts)
        return cls(np.concatenate([part.values for part in parts], axis=1), (first, *parts[0].extent[1:]))

    @property
    def num_codebooks(self) -> int:
        """K."""
        return int(self.values.shape[0])

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of one codebook's codes."""
        return tuple(int(n) for n in self.values.shape[1:])

    @property
    def num_tokens(self) -> int:
        """K times the number of grid positions."""
        return int(self.values.size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Codes):
            return NotImplemented
        return self.extent == other.extent and np.array_equal(self.values, other.values)

    __hash__ = None  # type: ignore[assignment]  # compares by content, which hashing would have to read


@dataclass(frozen=True, slots=True, eq=False)
class Waveform:
    """Sampled sound.

    Args:
        samples: [C, N] floating point, nominally in [-1, 1], held as float32; a 1-D array is taken as one channel.
        sample_rate_hz: Samples per second, > 0.

    Raises:
        InputError: The rate is not positive, there is no channel, or the samples are integers.
    """

    samples: NDArray[np.float32]
    sample_rate_hz: int

    def __post_init__(self) -> None:
        samples = np.asarray(self.samples)
        if samples.dtype.kind != "f":
            raise InputError(
                f"samples of dtype {samples.dtype}: give floating point with full scale 1; of 16 bits, samples / 32768"
            )
        samples = samples.astype(np.float32, copy=False)
        samples = samples[None, :] if samples.ndim == 1 else samples
        if samples.ndim != 2 or samples.shape[0] == 0:
            raise InputError(f"samples of shape {list(samples.shape)}: give [channels, samples], one channel or more")
        if self.sample_rate_hz <= 0:
            raise InputError(f"sample_rate_hz={self.sample_rate_hz}: a waveform needs a rate above 0")
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "sample_rate_hz", int(self.sample_rate_hz))

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return float(self.samples.shape[1] / self.sample_rate_hz)


@runtime_checkable
class Tokenizer(Protocol[Raw]):
    """What every tokenizer offers. Derive from `TokenizerBase` to write only the first four."""

    @property
    def spec(self) -> TokenizerSpec:
        """What the codes look like."""

    def encode(self, raw: Raw, /) -> Codes:
        """Codes of one raw item."""

    def decode(self, codes: Codes, /) -> Raw:
        """The raw item that `codes` stand for."""

    def get_config(self) -> dict[str, Json]:
        """JSON values which, with `get_tensors`, rebuild an equal tokenizer."""

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """The learned state; empty where there is none."""

    def encode_batch(self, raws: Sequence[Raw], /) -> list[Codes]:
        """Equals `[encode(raw) for raw in raws]`, bit for bit."""

    def decode_batch(self, batch: Sequence[Codes], /) -> list[Raw]:
        """Equals `[decode(codes) for codes in batch]`, bit for bit."""

    def num_tokens(self, extent: tuple[int, ...], /) -> int | None:
        """Exact `encode(raw).num_tokens` for a raw item of this extent; None where the content decides."""

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], /) -> Self:
        """Rebuild a tokenizer from its configuration and tensors."""


@runtime_checkable
class StreamingTokenizer(Protocol):
    """What tokenizers of sound and video offer besides: the same codes, and the same raw items, piece by piece.

    Pieces may be cut anywhere: joined, what they give equals what the whole gives, bit for bit. A stream is for one
    item and one thread; the tokenizer may serve many at once.
    """

    def stream(self) -> Any:
        """Begin an item: `push(raw piece)` gives the codes that are known by then, `flush()` ends it with the rest."""

    def decode_stream(self) -> Any:
        """Begin an item: `push(codes)` gives the raw piece that is known by then."""


@runtime_checkable
class DirectoryReader(Protocol):
    """What an adapter's class offers besides: reading a checkpoint folder that others have written."""

    @classmethod
    def from_directory(cls, folder: Path, /, *, name: str | None) -> Tokenizer[Any]:
        """Build the tokenizer from the files of a published checkpoint; None takes the kind's own name."""


class TokenizerBase(ABC, Generic[Raw]):
    """The parts of `Tokenizer` that most tokenizers share: batches as loops, a count from the stride, no tensors."""

    @property
    @abstractmethod
    def spec(self) -> TokenizerSpec:
        """What the codes look like."""

    @abstractmethod
    def encode(self, raw: Raw, /) -> Codes:
        """Codes of one raw item."""

    @abstractmethod
    def decode(self, codes: Codes, /) -> Raw:
        """The raw item that `codes` stand for."""

    @abstractmethod
    def get_config(self) -> dict[str, Json]:
        """JSON values which, with `get_tensors`, rebuild an equal tokenizer."""

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """The learned state; empty where there is none."""
        return {}

    def encode_batch(self, raws: Sequence[Raw], /) -> list[Codes]:
        """Equals `[encode(raw) for raw in raws]`, bit for bit."""
        return [self.encode(raw) for raw in raws]

    def decode_batch(self, batch: Sequence[Codes], /) -> list[Raw]:
        """Equals `[decode(codes) for codes in batch]`, bit for bit."""
        return [self.decode(codes) for codes in batch]

    def num_tokens(self, extent: tuple[int, ...], /) -> int | None:
        """Exact `encode(raw).num_tokens` for a raw item of this extent; None where the content decides."""
        if len(extent) != len(self.spec.stride):
            raise ShapeError(f"extent {extent}: {self.spec.kind!r} counts along the axes {self.spec.grid_axes}")
        if 0 in self.spec.stride:
            return None
        count = self.spec.num_codebooks
        for n, step in zip(extent, self.spec.stride, strict=True):
            count *= -(-n // step)
        return count

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], /) -> Self:
        """Rebuild a tokenizer: configuration and tensors are the constructor's keyword arguments."""
        return cls(**config, **tensors)

    def __repr__(self) -> str:
        spec = self.spec
        sizes = "x".join(map(str, spec.codebook_sizes)) if spec.num_codebooks < 5 else f"{spec.num_codebooks} codebooks"
        return f"<{type(self).__name__} {spec.name!r}: {spec.modality} -> {sizes} over {spec.grid_axes}>"
