"""The one code path of image-vq, video-vq and volume-vq: a small neural codec in exact integer arithmetic.

    raw -> levels -128 to 127 -> latents -> K codes a grid position            `multitok.nets.integer` does the middle
    codes of the first n codebooks -> latents -> levels -> raw

What is equal to what, bit for bit, both ways: tiles to the whole, a batch to single calls, a stream to the clip, any
number of threads, engine, machine or memory layout. Nothing is normalised over positions and every net reaches a
finite way, so the tiles that bound the memory (`_nd_codec`) do not show. Codes of the first n codebooks are those of
`first_codebooks(n)`, and decode by themselves.

Sizes that the patch does not divide repeat their edge on the right, below and at the end; decoding crops.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, ShapeError, SpecError
from multitok.frontend.patches import patch_grid
from multitok.nets.autoencoder_config import AutoencoderConfig, Sizes
from multitok.nets.integer import IntegerAutoencoder
from multitok.protocol import Codes, Json, Modality, TokenizerBase, TokenizerSpec
from multitok.tokenizers._nd_codec import NdCodec
from multitok.tokenizers._nd_levels import Levels

if TYPE_CHECKING:
    from typing_extensions import Self

    from multitok.nets.module import AutoencoderModule


class NdVq(TokenizerBase[NDArray[Any]]):
    """Raw arrays by an integer autoencoder; subclasses say what their arrays are.

    Args:
        net: The autoencoder.
        levels: What becomes of raw values.
        num_codebooks: How many codebooks to use, the first ones; None for all.
        name: Name inside a vocabulary; None takes the modality's.

    Raises:
        SpecError: The autoencoder is not one of this kind, or has fewer codebooks.
    """

    kind: ClassVar[str]
    modality: ClassVar[Modality]
    grid_axes: ClassVar[tuple[str, ...]]
    channels: ClassVar[int]
    # Neighbours in time that an autoencoder of this kind may see.
    allowed_taps: ClassVar[tuple[tuple[int, ...], ...]]

    def __init__(
        self, net: IntegerAutoencoder, levels: Levels, num_codebooks: int | None = None, name: str | None = None
    ) -> None:
        config = net.config
        if config.channels != self.channels or config.taps not in self.allowed_taps:
            raise SpecError(
                f"an autoencoder of {config.channels} channels with taps {config.taps}: {self.kind!r} needs "
                f"{self.channels} and taps {' or '.join(map(str, self.allowed_taps))}"
            )
        count = config.num_codebooks if num_codebooks is None else num_codebooks
        if not 1 <= count <= config.num_codebooks:
            raise SpecError(f"num_codebooks={count}: this autoencoder has 1 to {config.num_codebooks}")
        self._spec = TokenizerSpec(
            kind=self.kind,
            name=self.modality.value if name is None else name,
            modality=self.modality,
            codebook_sizes=config.codebook_sizes[:count],
            grid_axes=self.grid_axes,
            stride=config.patch[3 - len(self.grid_axes) :],
        )
        self._net, self._levels = net, levels
        self._module: AutoencoderModule | None = None

    @property
    def spec(self) -> TokenizerSpec:
        """What the codes look like."""
        return self._spec

    @property
    def net(self) -> IntegerAutoencoder:
        """The autoencoder, with all its codebooks."""
        return self._net

    @property
    def level_droppable(self) -> bool:
        """True: any number of first codebooks decodes."""
        return True

    @property
    def module(self) -> AutoencoderModule:
        """The same tokenizer as an `nn.Module` for tensors, to be used inside a training loop on any device.

        `encode(pixels [B, C, *axes]) -> codes [B, K, *grid]`, `decode(codes)`, a differentiable `forward(pixels)`.
        """
        if self._module is None:
            from multitok.nets.module import AutoencoderModule

            self._module = AutoencoderModule(
                self._net,
                num_codebooks=self._spec.num_codebooks,
                num_axes=len(self.grid_axes),
                window=self._levels.window,
                whole_values=self._levels.dtype is np.uint8,
            )
        return self._module

    def first_codebooks(self, count: int) -> Self:
        """The tokenizer of the first codebooks: its codes are the first rows of this one's.

        Args:
            count: From 1 to the number of codebooks of this tokenizer.

        Raises:
            SpecError: There are not that many.
        """
        if not 1 <= count <= self._spec.num_codebooks:
            raise SpecError(f"first_codebooks({count}): give 1 to {self._spec.num_codebooks}")
        return self._made(self._net, {**self._options(), "num_codebooks": count})

    def encode(self, raw: NDArray[Any], /) -> Codes:
        """Codes of one raw array.

        Args:
            raw: As the subclass says; any memory layout, and any size, since a memory-mapped file is read piece by
                piece.

        Returns:
            Codes [K, *grid]; the grid is each raw size over the patch, rounded up.

        Raises:
            ShapeError: `raw` has another rank, dtype or number of channels.
            InputError: An axis is empty, or a value is not finite.
        """
        frames = self._frames(raw)
        codec, grid = self.codec(), self._grid(frames.shape)
        values = np.empty((codec.num_codebooks, *grid), np.int32)
        codec.encode(frames, values, codec.encode_pass(grid))
        return self._codes(values, raw.shape[: len(self.grid_axes)])

    def decode(
        self, codes: Codes, /, *, num_codebooks: int | None = None, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """The raw array that codes stand for.

        Args:
            codes: All codebooks over the grid that belongs to their extent, or the first `num_codebooks`.
            num_codebooks: How many codebooks to decode, the first ones; None takes all.
            out: Where to write, for instance a memory-mapped file; None makes a new array.

        Returns:
            The raw array, its padding cropped; `out` where that is given.

        Raises:
            ShapeError: `codes` does not have these codebooks over the grid axes, its grid does not fit its extent, or
                `out` is of another shape or dtype.
            CodeRangeError: A code lies outside its codebook.
            SpecError: There are fewer codebooks.
        """
        codec = self.codec(num_codebooks)
        self.check_codes(codes, codec.num_codebooks)
        shape = self.raw_shape(codes.extent)
        if out is None:
            out = np.empty(shape, self._levels.dtype)
        elif out.shape != shape or out.dtype != self._levels.dtype:
            raise ShapeError(
                f"out is {out.dtype} {list(out.shape)}: these codes need {np.dtype(self._levels.dtype)} {list(shape)}"
            )
        frames = self.to_frames(out)
        values = codes.values.reshape(codes.num_codebooks, *self._grid(frames.shape))
        codec.decode(values, frames, codec.decode_pass(self._grid(frames.shape)))
        return out

    def encode_batch(self, raws: Sequence[NDArray[Any]], /) -> list[Codes]:
        """Equals `[encode(raw) for raw in raws]`, bit for bit; items of one size run together where time allows it."""
        found: dict[int, Codes] = {}
        for indices in self._groups([self._frames(raw).shape for raw in raws]):
            frames = self._joined([self.to_frames(raws[i]) for i in indices])
            grid = self._grid(frames.shape)
            values = np.empty((self._spec.num_codebooks, *grid), np.int32)
            self.codec().encode(frames, values, self.codec().encode_pass(grid))
            for i, part in zip(indices, np.split(values, len(indices), 1), strict=True):
                found[i] = self._codes(part, raws[i].shape[: len(self.grid_axes)])
        return [found[i] if i in found else self.encode(raw) for i, raw in enumerate(raws)]

    def decode_batch(self, batch: Sequence[Codes], /) -> list[NDArray[Any]]:
        """Equals `[decode(codes) for codes in batch]`, bit for bit; as in `encode_batch`."""
        for codes in batch:
            self.check_codes(codes, self._spec.num_codebooks)
        first = (1,) * (3 - len(self.grid_axes))
        frame_shapes = [(*first, *codes.extent, self.channels) for codes in batch]
        found: dict[int, NDArray[Any]] = {}
        for indices in self._groups(frame_shapes):
            grid = self._grid(frame_shapes[indices[0]])
            values = np.concatenate([batch[i].values.reshape(-1, *grid) for i in indices], 1)
            step, (length, *plane) = self._net.config.patch[0], frame_shapes[indices[0]]
            frames = np.empty((grid[0] * len(indices) * step, *plane), self._levels.dtype)
            self.codec().decode(values, frames, self.codec().decode_pass(self._grid(frames.shape)))
            for i, part in zip(indices, np.split(frames, len(indices)), strict=True):
                found[i] = part[:length].reshape(self.raw_shape(batch[i].extent)).copy()
        return [found[i] if i in found else self.decode(codes) for i, codes in enumerate(batch)]

    def get_config(self) -> dict[str, Json]:
        """JSON values which, with `get_tensors`, rebuild an equal tokenizer."""
        return {"autoencoder": self._net.config.to_json(), **self._options()}

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """The autoencoder's integers and scales."""
        return {key: value.copy() for key, value in self._net.tensors.items()}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], /) -> Self:
        """Rebuild a tokenizer from what `get_config` and `get_tensors` returned.

        Raises:
            SpecError: A tensor is missing, left over or of another shape or dtype, or a value cannot be.
        """
        options = dict(config)
        if "autoencoder" not in options:
            raise TypeError("the configuration lacks 'autoencoder'")
        net = IntegerAutoencoder(AutoencoderConfig(**options.pop("autoencoder")), tensors)
        tokenizer = cls._made(net, options)
        absent = tokenizer.get_config().keys() - config.keys()
        if absent:
            raise SpecError(f"the configuration lacks {', '.join(sorted(absent))}: copy the whole of it")
        return tokenizer

    def codec(self, num_codebooks: int | None = None) -> NdCodec:
        """What runs the autoencoder over frames.

        Raises:
            SpecError: There are fewer codebooks.
        """
        count = self._spec.num_codebooks if num_codebooks is None else num_codebooks
        if not 1 <= count <= self._spec.num_codebooks:
            raise SpecError(f"num_codebooks={count}: this tokenizer has 1 to {self._spec.num_codebooks}")
        return NdCodec(self._net, self._levels, count)

    def check_codes(self, codes: Codes, count: int, *, part: bool = False) -> None:
        """Raise unless these are codes of all codebooks, or of the first `count`, over the grid of their extent.

        Args:
            codes: What a caller gave.
            count: Codebooks that are decoded.
            part: Of a stream, so that there may be no frames.

        Raises:
            ShapeError: They are not.
            CodeRangeError: A code lies outside its codebook.
        """
        sizes = self._spec.codebook_sizes
        given = sizes[:count] if codes.num_codebooks == count else sizes
        replace(self._spec, codebook_sizes=given).check(codes)
        if codes.grid != patch_grid(codes.extent, self._spec.stride):
            raise ShapeError(
                f"codes over a grid {codes.grid} for extent {codes.extent}: patches of {self._spec.stride} make a grid "
                f"{patch_grid(codes.extent, self._spec.stride)} of it"
            )
        if 0 in codes.extent[part:]:
            raise ShapeError(f"codes of extent {codes.extent}: every axis is at least 1 long")

    @abstractmethod
    def check_raw(self, raw: NDArray[Any]) -> None:
        """Raise unless `raw` has the rank, dtype and values of this modality."""

    @abstractmethod
    def to_frames(self, raw: NDArray[Any]) -> NDArray[Any]:
        """A view [T, H, W, C] of a raw array."""

    @abstractmethod
    def raw_shape(self, extent: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the raw array of this extent."""

    @classmethod
    def _made(cls, net: IntegerAutoencoder, options: Mapping[str, Any]) -> Self:
        # The constructors of the kinds differ in what follows the autoencoder.
        make: Callable[..., Self] = cls
        return make(net, **options)

    def _options(self) -> dict[str, Json]:
        return {"name": self._spec.name, "num_codebooks": self._spec.num_codebooks}

    def _frames(self, raw: NDArray[Any]) -> NDArray[Any]:
        self.check_raw(raw)
        if 0 in raw.shape:
            raise InputError(f"{self.modality} of shape {list(raw.shape)}: every axis must be at least 1 long")
        return self.to_frames(raw)

    def _codes(self, values: NDArray[np.int32], extent: tuple[int, ...]) -> Codes:
        return Codes(values.reshape(len(values), *values.shape[4 - len(self.grid_axes) :]), extent)

    def _grid(self, shape: tuple[int, ...]) -> Sizes:
        t, h, w = patch_grid(shape[:3], self._net.config.patch)
        return t, h, w

    def _groups(self, shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """Items of one size that fit into one tile together, where frames know nothing of each other."""
        if self._net.config.taps != (0,):
            return []
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, shape in enumerate(shapes):
            by_shape.setdefault(shape, []).append(i)
        groups = []
        for shape, indices in by_shape.items():
            t, h, w = self._grid(shape)
            size = self.codec().most() // (t * h * w)
            if size > 1:
                groups += [indices[i : i + size] for i in range(0, len(indices), size)]
        return groups

    def _joined(self, items: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Frames of several items one after the other, each filled up to whole patches in time."""
        missing = -len(items[0]) % self._net.config.patch[0]
        return np.concatenate([np.pad(item, [(0, missing), (0, 0), (0, 0), (0, 0)], mode="edge") for item in items])
