"""The one code path of the patch tokenizers: image, video and volume differ only in their raw arrays.

    raw -> integer levels -> patches [P, L] -> latents [P, D] -> codes [P, K]
              (a)              (b)           (c)             (d)

(a) Each raw value becomes a small integer, 0 in the middle of its range.
(b) `multitok.frontend.patches`; sizes that the patch does not divide repeat their edge.
(c) A linear stem: the patch times an orthonormal basis (principal components), L values to D latents.
(d) A residual quantiser. Decoding adds the code vectors and multiplies by the basis' transpose.

Every step is integer arithmetic carried by floats. Basis entries are multiples of 1 / BASIS_SCALE, latents and
code vectors multiples of 1 / LATENT_SCALE of a level, and the float type is chosen so that no sum leaves the range
in which its integers are exact. So no code and no decoded value depends on the order in which a BLAS adds: they are
the same for one patch or many, for a whole array or its tiles (cut at patch edges), for any number of threads and
on any processor.

L = prod(patch) * C values a patch, P patches, D latents, K codebooks.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, ShapeError, SpecError
from multitok.frontend.patches import from_patches, patch_grid, to_patches
from multitok.protocol import Codes, Json, Modality, TokenizerBase, TokenizerSpec
from multitok.quantize import ResidualQuantizer

# A basis entry of 1.0; entries are 13-bit integers, which keeps the basis orthonormal to about 1e-4.
BASIS_SCALE = 2**12
# A latent of one level. Latents are rounded to 1/8 of a level, far below what any codebook leaves over.
LATENT_SCALE = 2**3
# Integers up to here are exact in float32 and in float64.
EXACT_FLOAT32, EXACT_FLOAT64 = 2**24, 2**53
# Patches worked on at once; bounds the float copies, not the result.
BLOCK_PATCHES = 2**14


class PatchRvq(TokenizerBase[NDArray[Any]]):
    """Patches, a linear stem and a residual quantiser; subclasses say what their raw arrays are.

    Args:
        basis: [L, D] int16, columns orthonormal in units of 1 / BASIS_SCALE.
        codebooks: [sum(codebook_sizes), D] int32, the K codebooks one below the other, in units of
            1 / LATENT_SCALE of a level.
        codebook_sizes: Size of each codebook.
        patch: Size of a patch along each grid axis.
        name: Name inside a vocabulary; None takes the modality's.

    Raises:
        SpecError: The parts do not fit each other, or leave the range of exact integers.
    """

    kind: ClassVar[str]
    modality: ClassVar[Modality]
    grid_axes: ClassVar[tuple[str, ...]]
    channels: ClassVar[int]
    raw_dtype: ClassVar[type[np.generic]]
    # Largest absolute level that a raw value can become.
    max_level: ClassVar[int]

    def __init__(
        self,
        *,
        basis: NDArray[np.int16],
        codebooks: NDArray[np.int32],
        codebook_sizes: Sequence[int],
        patch: Sequence[int],
        name: str | None = None,
    ) -> None:
        self._spec = TokenizerSpec(
            kind=self.kind,
            name=self.modality.value if name is None else name,
            modality=self.modality,
            codebook_sizes=tuple(codebook_sizes),
            grid_axes=self.grid_axes,
            stride=tuple(patch),
        )
        if min(self._spec.stride) < 1:
            raise SpecError(f"patch={self._spec.stride}: every side must be at least 1")
        length = math.prod(self._spec.stride) * self.channels
        if basis.ndim != 2 or basis.dtype != np.int16 or len(basis) != length or basis.shape[1] == 0:
            raise SpecError(
                f"basis is {basis.dtype} {list(basis.shape)}: patches of {self._spec.stride} with {self.channels} "
                f"channels need int16 [{length}, D]"
            )
        rows = sum(self._spec.codebook_sizes)
        if codebooks.dtype != np.int32 or codebooks.shape != (rows, basis.shape[1]):
            raise SpecError(
                f"codebooks are {codebooks.dtype} {list(codebooks.shape)}: codebook sizes "
                f"{self._spec.codebook_sizes} need int32 [{rows}, {basis.shape[1]}]"
            )
        self._basis = np.array(basis)
        self._codebooks = np.array(codebooks)
        ends = np.cumsum(self._spec.codebook_sizes)[:-1]
        tables = np.split(self._codebooks, ends)
        largest_sum = int(np.abs(self._basis.astype(np.int64)).sum(axis=0).max()) * self.max_level
        largest_latent = largest_sum * LATENT_SCALE // BASIS_SCALE + 1
        reach = largest_latent + sum(int(np.abs(table.astype(np.int64)).max()) for table in tables)
        if reach >= EXACT_FLOAT32 or reach * BASIS_SCALE * basis.shape[1] >= EXACT_FLOAT64:
            raise SpecError(
                f"latents and code vectors reach {reach} units of 1/{LATENT_SCALE} level: from 2^24 on they would be "
                "rounded; give a smaller patch or check the codebooks"
            )
        # Exact either way, so both give the same latents; float32 is twice as fast.
        self._projection = self._basis.astype(np.float32 if largest_sum <= EXACT_FLOAT32 else np.float64)
        self._expansion = self._basis.T.astype(np.float64)
        self._quantizer = ResidualQuantizer([table.astype(np.float32) for table in tables])

    @property
    def spec(self) -> TokenizerSpec:
        """What the codes look like."""
        return self._spec

    @property
    def quantizer(self) -> ResidualQuantizer:
        """The K codebooks over the latents, in units of 1 / LATENT_SCALE of a level."""
        return self._quantizer

    def encode(self, raw: NDArray[Any], /) -> Codes:
        """Codes of one raw array.

        Args:
            raw: As the subclass says; any memory layout.

        Returns:
            Codes [K, *grid]; the grid is each raw size over the patch size, rounded up.

        Raises:
            ShapeError: `raw` has another rank, dtype or number of channels.
            InputError: An axis is empty, or a value is not finite.
        """
        self.check_raw(raw)
        extent = raw.shape[: len(self.grid_axes)]
        if 0 in extent:
            raise InputError(f"{self.modality} of shape {list(raw.shape)}: every axis must be at least 1 long")
        patches = to_patches(raw.reshape(*extent, self.channels), self._spec.stride)
        codes = np.empty((self._spec.num_codebooks, len(patches)), np.int32)
        for block in _blocks(len(patches)):
            codes[:, block] = self._quantizer.encode(self.latents(patches[block])).T
        grid = patch_grid(extent, self._spec.stride)
        return Codes(codes.reshape(self._spec.num_codebooks, *grid), extent)

    def decode(self, codes: Codes, /) -> NDArray[Any]:
        """The raw array that `codes` stand for.

        Args:
            codes: All K codebooks over the grid that belongs to their extent.

        Returns:
            The raw array, its padding cropped.

        Raises:
            ShapeError: `codes` does not have K codebooks over the grid axes, or its grid does not fit its extent.
            CodeRangeError: A code lies outside its codebook.
        """
        self._spec.check(codes)
        if codes.grid != patch_grid(codes.extent, self._spec.stride):
            raise ShapeError(
                f"codes over a grid {codes.grid} for extent {codes.extent}: patches of {self._spec.stride} make a grid "
                f"{patch_grid(codes.extent, self._spec.stride)} of it"
            )
        table = codes.values.reshape(self._spec.num_codebooks, -1)
        patches = np.empty((table.shape[1], len(self._basis)), self.raw_dtype)
        for block in _blocks(table.shape[1]):
            quantized = self._quantizer.decode(table[:, block].T).astype(np.float64)
            levels = quantized @ self._expansion
            levels *= 1 / (BASIS_SCALE * LATENT_SCALE)
            patches[block] = self.from_levels(levels)
        raw = from_patches(patches, self._spec.stride, codes.extent)
        return raw if self.channels > 1 else raw[..., 0]

    def latents(self, patches: NDArray[Any]) -> NDArray[np.float32]:
        """The linear stem: raw patches [P, L] to latents [P, D], integers held as float32."""
        projected = self.to_levels(patches).astype(self._projection.dtype, copy=False) @ self._projection
        projected *= LATENT_SCALE / BASIS_SCALE
        latents: NDArray[np.float32] = np.rint(projected, out=projected).astype(np.float32, copy=False)
        return latents

    def get_config(self) -> dict[str, Json]:
        """JSON values which, with `get_tensors`, rebuild an equal tokenizer."""
        return {
            "name": self._spec.name,
            "patch": list(self._spec.stride),
            "codebook_sizes": list(self._spec.codebook_sizes),
        }

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """The basis and the codebooks."""
        return {"basis": self._basis.copy(), "codebooks": self._codebooks.copy()}

    @abstractmethod
    def check_raw(self, raw: NDArray[Any]) -> None:
        """Raise unless `raw` has the rank, dtype and values of this modality."""

    @abstractmethod
    def to_levels(self, patches: NDArray[Any]) -> NDArray[Any]:
        """Raw values [P, L] as integer levels held in floats, at most `max_level` in size."""

    @abstractmethod
    def from_levels(self, levels: NDArray[np.float64]) -> NDArray[Any]:
        """The raw values that any (not only integer) levels [P, L] stand for; may overwrite `levels`."""


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, BLOCK_PATCHES):
        yield slice(start, start + BLOCK_PATCHES)
