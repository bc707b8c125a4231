"""Predictive quantisation of mel frames in exact integer arithmetic: the middle of audio-mel-vq.

    levels [L] - mean -- basis --> latents [D] --(-)--> residual -- quantiser --> K codes
                                                ^                        |
                 prediction from the last decoded latents <--- + <-------+  code vectors
                                                               |
    levels [L] + mean <-- basis' transpose ----------- decoded latents

Encoder and decoder predict from the same decoded latents, so errors do not add up. Basis, prediction and code vectors
are integers carried by floats, no sum leaves the range in which float64 is exact, and every rounding is one of IEEE's:
codes and decoded levels are the same for any way of calling, number of threads and machine.

L = patch_frames * M levels of a patch, D latents, K codebooks, P patches that a prediction reads, n patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from multitok.codebook import Codebook
from multitok.errors import SpecError
from multitok.protocol import Json

# A basis entry, and a prediction's, of 1.0.
BASIS_SCALE, PREDICTION_SCALE = 2**12, 2**12
# A latent of one level.
LATENT_SCALE = 2**3
# Decoded latents stay within: sums of what any codes decode to remain exact.
MOST_LATENT = 2**15 - 1

Floats = NDArray[np.float64]


class Quantizer(Protocol):
    """One residual at a time to K codes, and back. All values are integers, carried by float64."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """V of each codebook."""

    @property
    def dim(self) -> int:
        """D."""

    def encode(self, residual: Floats) -> tuple[NDArray[np.int32], Floats]:
        """Codes [K] of a residual [D], and what they decode to."""

    def decode(self, codes: NDArray[np.int32]) -> Floats:
        """What codes [K, n] stand for: [n, D]."""

    def get_config(self) -> dict[str, Json]:
        """JSON values which, with the tensors, rebuild it."""

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """The tensors, copied."""


class ResidualBeam:
    """Residual VQ, each codebook on what those before left over; a beam of the best prefixes is kept.

    Args:
        codebooks: K of int16 [V, D].
        beam: Prefixes kept after each codebook; 1 is the greedy search. Encoding only.

    Raises:
        SpecError: There is no codebook, they differ in D or are not int16, or the beam is below 1 or above a codebook.

    Source:
        Babenko and Lempitsky 2014, "Additive Quantization", section 3.1.
    """

    def __init__(self, codebooks: Sequence[NDArray[np.int16]], beam: int = 1) -> None:
        shapes = [(each.dtype, each.ndim, each.shape[-1]) for each in codebooks]
        if not codebooks or set(shapes) != {(np.dtype(np.int16), 2, codebooks[0].shape[-1])}:
            given = ", ".join(f"{each.dtype} {list(each.shape)}" for each in codebooks)
            raise SpecError(f"codebooks are {given or 'missing'}: give int16 [V, D], all of one D")
        if not 1 <= beam <= min(16, *map(len, codebooks)):
            raise SpecError(f"beam={beam}: give 1 to 16, at most the size of a codebook")
        self._values = [each.astype(np.float64) for each in codebooks]
        # Integers below 2^24, which float32 holds.
        self._books = [Codebook(each.astype(np.float32)) for each in codebooks]
        self._beam = beam

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """V of each codebook."""
        return tuple(len(each) for each in self._values)

    @property
    def dim(self) -> int:
        """D."""
        return int(self._values[0].shape[1])

    @property
    def codebooks(self) -> list[NDArray[np.float32]]:
        """The K codebooks, read-only."""
        return [book.values for book in self._books]

    def encode(self, residual: Floats) -> tuple[NDArray[np.int32], Floats]:
        """See `Quantizer`; of equal candidates the better prefix wins, then the nearer code."""
        left = residual[None]
        codes = np.zeros((1, len(self._books)), np.int32)
        for k, book in enumerate(self._books):
            last = k + 1 == len(self._books)
            found = book.search(left.astype(np.float32), k=1 if last else self._beam, distances=True, threads=1)
            order = np.argsort(found.distances, axis=None, kind="stable")[: 1 if last else self._beam]
            prefix, candidate = np.divmod(order, found.codes.shape[1])
            chosen = found.codes[prefix, candidate]
            codes, left = codes[prefix], left[prefix] - self._values[k][chosen]
            codes[:, k] = chosen
        return codes[0], residual - left[0]

    def decode(self, codes: NDArray[np.int32]) -> Floats:
        """See `Quantizer`."""
        return np.asarray(sum(values[row] for values, row in zip(self._values, codes, strict=True)), np.float64)

    def get_config(self) -> dict[str, Json]:
        """See `Quantizer`."""
        return {"kind": "residual", "codebook_sizes": list(self.codebook_sizes), "beam": self._beam}

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """`codebooks` [sum of V, D]."""
        return {"codebooks": np.concatenate(self._values).astype(np.int16)}


class ScalarGroups:
    """Finite scalar quantisation: each latent rounded to a few even steps, several latents making one code.

    Code of a group: digit[0] + digit[1] * levels[0] + ..., as in `multitok.quantize.FSQ`. Latents without levels of
    their own are left to the prediction.

    Args:
        steps: [D] int16, above 0: between two levels of a latent.
        levels: The levels of each group's latents, which follow one another from the first latent on.

    Raises:
        SpecError: More levels than latents, none of one, a step that is not above 0, or a group too large.

    Source:
        Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple".
    """

    def __init__(self, steps: NDArray[np.int16], levels: Sequence[Sequence[int]]) -> None:
        flat = [count for group in levels for count in group]
        self.codebook_sizes = tuple(int(np.prod(group, dtype=np.int64)) for group in levels)
        if steps.ndim != 1 or not 0 < len(flat) <= len(steps) or min(flat) < 1 or steps.min() <= 0:
            raise SpecError(f"levels={levels} with steps {list(steps.shape)}: give a step above 0 and a level or more")
        if max(self.codebook_sizes) > 2**16:
            raise SpecError(f"levels={levels}: the levels of a group may multiply to 65,536 at most")
        self._all_steps, self._steps = np.array(steps), steps[: len(flat)].astype(np.float64)
        self._levels, self.dim = np.array(flat), len(steps)
        self._middle = (self._levels - 1) / 2
        ends = np.cumsum([len(group) for group in levels])
        self._spans = [slice(end - len(group), end) for end, group in zip(ends, levels, strict=True)]
        self._weights = np.concatenate([np.cumprod([1, *group[:-1]]) for group in levels])

    def encode(self, residual: Floats) -> tuple[NDArray[np.int32], Floats]:
        """See `Quantizer`."""
        places = np.rint(residual[: len(self._levels)] / self._steps + self._middle)
        digits = np.clip(places, 0, self._levels - 1).astype(np.int64) * self._weights
        codes = np.array([digits[span].sum() for span in self._spans], np.int32)
        return codes, self.decode(codes[:, None])[0]

    def decode(self, codes: NDArray[np.int32]) -> Floats:
        """See `Quantizer`."""
        values = np.zeros((codes.shape[1], self.dim))
        for row, span in zip(codes, self._spans, strict=True):
            digits = row[:, None] // self._weights[span] % self._levels[span]
            values[:, span] = np.rint((digits - self._middle[span]) * self._steps[span])
        return values

    def get_config(self) -> dict[str, Json]:
        """See `Quantizer`."""
        levels = [self._levels[span].tolist() for span in self._spans]
        return {"kind": "scalar", "levels": levels}

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """`steps` [D]."""
        return {"steps": self._all_steps.copy()}


class MelLatents:
    """Patches of levels <-> codes, one after the other; immutable. A stream's state is its last decoded latents.

    Args:
        mean: [L] int16: levels that latents of 0 stand for.
        basis: [L, D] int16, columns orthonormal in units of 1 / BASIS_SCALE.
        prediction: [P * D, D] int16 in units of 1 / PREDICTION_SCALE: of the last decoded latents, the latest first.
        quantizer: Of the residuals.

    Raises:
        SpecError: The parts do not fit each other.
    """

    def __init__(
        self,
        mean: NDArray[np.int16],
        basis: NDArray[np.int16],
        prediction: NDArray[np.int16],
        quantizer: Quantizer,
    ) -> None:
        d = quantizer.dim
        forms = [(each.dtype, each.ndim) for each in (mean, basis, prediction)]
        if (
            forms != [(np.dtype(np.int16), n) for n in (1, 2, 2)]
            or basis.shape != (len(mean), d)
            or prediction.shape[1] != d
            or len(prediction) % d
        ):
            given = ", ".join(f"{each.dtype} {list(each.shape)}" for each in (mean, basis, prediction))
            raise SpecError(
                f"mean, basis and prediction are {given}: codebooks of {d} latents need int16 [L], [L, {d}] and "
                f"[P * {d}, {d}]"
            )
        self.quantizer = quantizer
        self._mean, self._basis = mean.astype(np.float64), basis.astype(np.float64)
        self._prediction, self._past = prediction.astype(np.float64), len(prediction) // d

    def initial_state(self) -> Floats:
        """[P, D] last decoded latents, the latest first, before the first patch: those of the mean."""
        return np.zeros((self._past, self.quantizer.dim))

    def encode(self, past: Floats, levels: Floats) -> tuple[Floats, NDArray[np.int32]]:
        """Codes of the next patches.

        Args:
            past: The state before them.
            levels: [n, L], integers.

        Returns:
            The state after, and [K, n].
        """
        latents = np.rint((levels - self._mean) @ self._basis * (LATENT_SCALE / BASIS_SCALE))
        codes = np.empty((len(self.quantizer.codebook_sizes), len(latents)), np.int32)
        for i, latent in enumerate(latents):
            predicted = self._predict(past)
            codes[:, i], found = self.quantizer.encode(latent - predicted)
            past = _after(past, predicted + found)
        return past, codes

    def decode(self, past: Floats, codes: NDArray[np.int32]) -> tuple[Floats, Floats]:
        """The levels that codes stand for.

        Args:
            past: The state before them.
            codes: [K, n].

        Returns:
            The state after, and [n, L], multiples of 1 / (BASIS_SCALE * LATENT_SCALE).
        """
        latents = self.quantizer.decode(codes)
        for i, found in enumerate(latents):
            past = _after(past, self._predict(past) + found)
            latents[i] = past[0] if len(past) else found
        return past, latents @ self._basis.T / (BASIS_SCALE * LATENT_SCALE) + self._mean

    def _predict(self, past: Floats) -> Any:
        return np.rint(past.reshape(-1) @ self._prediction / PREDICTION_SCALE)


def _after(past: Floats, decoded: Floats) -> Floats:
    return np.concatenate([np.clip(decoded, -MOST_LATENT, MOST_LATENT)[None], past])[: len(past)]
