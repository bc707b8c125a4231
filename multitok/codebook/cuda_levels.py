"""Residual levels in one kernel, for D <= 16: cuda/nearest_small.cu. One level is the plain nearest code.

Everything the kernel needs is prepared by torch on the device, without waiting for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from multitok.codebook.cuda_launch import SMALL_DIMS, Kernels

# As in cuda/nearest_small.cu.
TILE, VECTORS_PER_BLOCK, THREADS = 128, 256, 128
# Half norm of a code that is none.
FAR = 3e38
# A little more than what was computed, which covers the roundings of computing it.
UPWARD = 1 + 1e-6


class FusedLevels:
    """Codebooks of residual levels, prepared; immutable.

    Args:
        codebooks: Of each level [V, D] float32, finite, on one device, C order; D <= 16.
        kernels: Where they run.
    """

    def __init__(self, codebooks: Sequence[torch.Tensor], kernels: Kernels) -> None:
        self._kernels = kernels
        self._dim = codebooks[0].shape[1]
        pitch = -(-self._dim // 4) * 4
        prepared, half_norms, centres, places, bounds = [], [], [], [], []
        first = first_value = 0
        for values in codebooks:
            size = len(values)
            tiles = -(-size // TILE)
            operand, half_norm, centre, limits = _prepare(values)
            padding = (0, pitch - self._dim, 0, tiles * TILE - size)
            prepared.append(torch.nn.functional.pad(operand, padding))
            half_norms.append(torch.nn.functional.pad(half_norm, (0, tiles * TILE - size), value=FAR))
            centres.append(centre)
            bounds.append(limits)
            places.append([first, first_value, size, tiles])
            first, first_value = first + tiles * TILE, first_value + size
        device = codebooks[0].device
        self._values, self._prepared = torch.cat(list(codebooks)), torch.cat(prepared)
        self._half_norms, self._centres = torch.cat(half_norms), torch.stack(centres)
        # [levels, 9]: the bits of the kernel's `Level`.
        numbers = torch.tensor(places, dtype=torch.int32, device=device)
        self._levels = torch.cat([numbers, torch.stack(bounds).view(torch.int32)], dim=1)

    @staticmethod
    def fits(dim: int) -> bool:
        """Whether the kernel takes vectors of `dim` values."""
        return dim in SMALL_DIMS

    def run(
        self,
        vectors: torch.Tensor,
        start: int,
        codes: torch.Tensor,
        distances: torch.Tensor | None,
        bad_row: torch.Tensor,
    ) -> None:
        """Starts the kernel.

        Args:
            vectors: [n, D] float32, the values of a row contiguous.
            start: Number of the first one, for `bad_row`.
            codes: [n, levels] int64, written.
            distances: [n] or [n, 1] float64 of the last level, written; or None.
            bad_row: As `cuda_launch.flag` makes it; lowered to the first vector that is not finite.
        """
        if len(vectors) == 0:
            return
        self._kernels.launch(
            f"nearest_small<{self._dim}>", (-(-len(vectors) // VECTORS_PER_BLOCK),), THREADS,
            (
                vectors, np.int64(vectors.stride(0)), np.int64(len(vectors)), self._levels,
                np.int32(len(self._levels)), self._prepared, self._half_norms, self._values, self._centres, codes,
                distances, np.int64(start), bad_row, None,
            ),
        )  # fmt: skip


def _prepare(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """b^ [V, D], h^ [V], m [D], and t, B, B^, F, H [5]: see cuda/nearest_small.cu. All float32."""
    exact = values.double()
    centre = exact.mean(0).float()
    centre = torch.where(centre.isfinite(), centre, 0.0)
    offset = exact - centre.double()
    exponent = torch.frexp(_norms(offset).amax()).exponent.clamp(-126, 126)
    scale = torch.ldexp(torch.ones_like(offset[0, 0]), -exponent)
    scaled = offset * scale
    rounded = scaled.float()
    norm = _norms(scaled).amax()
    half_norm = scaled.square().sum(1) / 2
    # `scaled` is itself rounded to float64.
    error = _norms(scaled - rounded.double()).amax() + (values.shape[1] + 8) * 2.0**-52 * norm
    bounds = torch.stack([norm, _norms(rounded.double()).amax(), error, half_norm.amax()]) * UPWARD
    return rounded, half_norm.float(), centre, torch.cat([scale[None], bounds]).float()


def _norms(rows: torch.Tensor) -> torch.Tensor:
    return rows.square().sum(1).sqrt()
