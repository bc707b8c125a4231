"""Residual quantisation: each codebook quantises what the ones before it left over.

    vector --- nearest in codebook 0 --> code 0
       | minus code vector
    residual - nearest in codebook 1 --> code 1
       | minus code vector
    residual ...

N vectors, K codebooks, D dimensions. Greedy: one search per codebook, no beam. The first k codes of a vector
are what k codebooks alone would give, so a prefix of the codes decodes to a coarser vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from multitok.codebook import Codebook
from multitok.errors import CodeRangeError, InputError, ShapeError, SpecError

# Values of residuals held at once, 4 MiB.
BLOCK_VALUES = 2**20


class ResidualQuantizer:
    """K codebooks on successive residuals; immutable.

    Args:
        codebooks: K arrays [V_k, D] float32, finite; the V_k may differ.

    Raises:
        SpecError: There is no codebook, one is empty or not finite, or they differ in D.

    Source:
        Juang and Gray 1982, "Multiple stage vector quantization for speech coding".
    """

    def __init__(self, codebooks: Sequence[NDArray[np.float32]]) -> None:
        held = []
        for k, codebook in enumerate(codebooks):
            if codebook.ndim != 2 or 0 in codebook.shape or codebook.dtype != np.float32:
                raise SpecError(f"codebook {k} is {codebook.dtype} {list(codebook.shape)}: give float32 [V, D]")
            if codebook.shape[1] != codebooks[0].shape[1]:
                raise SpecError(
                    f"codebook {k} has D = {codebook.shape[1]}, codebook 0 has D = {codebooks[0].shape[1]}: "
                    "all must be equal"
                )
            if not np.isfinite(codebook).all():
                raise SpecError(f"codebook {k} holds NaN or infinity: its training failed")
            own = np.array(codebook, order="C")
            own.flags.writeable = False
            held.append(own)
        if not held:
            raise SpecError("no codebooks given: give at least one")
        self._codebooks = tuple(held)
        self._prepared: tuple[Codebook, ...] = ()

    @property
    def codebooks(self) -> tuple[NDArray[np.float32], ...]:
        """The K codebooks, read-only."""
        return self._codebooks

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """V_k of each codebook."""
        return tuple(len(codebook) for codebook in self._codebooks)

    @property
    def num_codebooks(self) -> int:
        """K."""
        return len(self._codebooks)

    @property
    def dim(self) -> int:
        """D."""
        return int(self._codebooks[0].shape[1])

    def encode(self, vectors: NDArray[np.float32]) -> NDArray[np.int32]:
        """Codes of each vector. Memory beside them: one block of residuals.

        Args:
            vectors: [N, D] float32, finite, any memory layout.

        Returns:
            [N, K] int32.

        Raises:
            ShapeError: `vectors` is not float32 [N, D].
            InputError: A value is not finite, or a residual leaves the range of float32.
        """
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise ShapeError(f"vectors given as {vectors.dtype} of shape {list(vectors.shape)}: give float32 [N, D]")
        if not self._prepared:  # at the first use: decoding needs none
            self._prepared = tuple(Codebook(codebook) for codebook in self._codebooks)
        codes = np.empty((len(vectors), self.num_codebooks), np.int32)
        codes[:, 0] = self._prepared[0].search(vectors).codes
        rows = max(BLOCK_VALUES // self.dim, 1)
        for start in range(0, len(vectors) if self.num_codebooks > 1 else 0, rows):
            block = codes[start : start + rows]
            residual = vectors[start : start + rows] - self._codebooks[0][block[:, 0]]
            for k in range(1, self.num_codebooks):
                try:
                    block[:, k] = self._prepared[k].search(residual).codes
                except InputError:
                    row = start + int(np.isfinite(residual).all(axis=1).argmin())
                    raise InputError(
                        f"vectors[{row}] minus its first {k} code vectors leaves the range of float32: scale the "
                        "vectors and the codebooks down"
                    ) from None
                residual -= self._codebooks[k][block[:, k]]
        return codes

    def decode(self, codes: NDArray[np.int32], num_codebooks: int | None = None) -> NDArray[np.float32]:
        """Quantised vectors: the sum of the code vectors, added from codebook 0 on.

        Args:
            codes: [N, k] integers, k <= K.
            num_codebooks: How many codebooks to use, the first ones; None uses all that `codes` has.

        Returns:
            [N, D] float32.

        Raises:
            ShapeError: `codes` is not [N, k] with 1 <= k <= K, or holds fewer than `num_codebooks`.
            CodeRangeError: A code lies outside its codebook.
        """
        codes = np.asarray(codes)
        if codes.ndim != 2 or not 1 <= codes.shape[1] <= self.num_codebooks or codes.dtype.kind not in "iu":
            raise ShapeError(
                f"codes are {codes.dtype} {list(codes.shape)}: give integers [N, k], 1 <= k <= {self.num_codebooks}"
            )
        used = codes.shape[1] if num_codebooks is None else num_codebooks
        if not 1 <= used <= codes.shape[1]:
            raise ShapeError(f"num_codebooks={num_codebooks}: these codes allow 1 to {codes.shape[1]}")
        quantized = np.zeros((len(codes), self.dim), np.float32)
        for k in range(used):
            _check_range(codes[:, k], k, len(self._codebooks[k]))
            quantized += self._codebooks[k][codes[:, k]]
        return quantized


def _check_range(codes: NDArray[np.int32], k: int, size: int) -> None:
    # NumPy would take a negative index from the end.
    if codes.size and (codes.min() < 0 or codes.max() >= size):
        bad = codes[(codes < 0) | (codes >= size)][0]
        raise CodeRangeError(f"code {bad} in codebook {k}: allowed are 0 to {size - 1}")
