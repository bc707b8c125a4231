"""`SimVQ`: a frozen random codebook seen through one learned linear map. V codes, D dimensions. Imports torch."""

from __future__ import annotations

import torch
from torch import nn

from multitok.errors import SpecError
from multitok.quantize.gradients import product
from multitok.quantize.vector_quantizer import LookupQuantizer


class SimVQ(LookupQuantizer):
    """One codebook whose code vectors all move together, so that large codebooks stay in use.

    Code vectors are `frozen @ transform.T`: `frozen` [V, F] is drawn once and kept, `transform` [D, F] learns from
    codebook_loss. A code is a row number. The product is taken at each use, V F D multiply-adds; a trained quantiser
    needs no transform any more: give `code_vectors()` to `VectorQuantizer.set_codebook`. That also fixes the ids across
    machines, whose matrix products may differ in the last bit.

    Args:
        dim: D.
        codebook_size: V.
        frozen_dim: F; None takes D.
        rotation_trick: Gradients by the rotation trick instead of straight through.

    Raises:
        SpecError: A size cannot be.

    Source:
        Zhu et al. 2024, "Addressing Representation Collapse in Vector Quantized Models with One Linear Layer", eq. 7.
    """

    frozen: torch.Tensor

    def __init__(
        self, dim: int, codebook_size: int, *, frozen_dim: int | None = None, rotation_trick: bool = False
    ) -> None:
        super().__init__(dim, codebook_size, metric="l2", rotation_trick=rotation_trick)
        inner = dim if frozen_dim is None else frozen_dim
        if inner < 1:
            raise SpecError(f"frozen_dim={frozen_dim}: give at least 1, or None for the dimension of the vectors")
        self.register_buffer("frozen", torch.randn(codebook_size, inner, dtype=torch.float32) * inner**-0.5)
        self.transform = nn.Parameter(nn.init.orthogonal_(torch.empty(dim, inner, dtype=torch.float32)))

    @property
    def learns_by_gradient(self) -> bool:
        """Always: `codebook_loss` moves the transform."""
        return True

    def code_vectors(self) -> torch.Tensor:
        """What the codes stand for, [V, D] float32."""
        return product(self.frozen, self.transform.T)

    def extra_repr(self) -> str:
        """What `print` shows of this module."""
        return f"dim={self.dim}, codebook_size={self.codebook_sizes[0]}, frozen_dim={self.frozen.shape[1]}"
