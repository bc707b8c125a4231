"""`IBQ`: the largest dot product over a large codebook, with gradients to every code. Imports torch.

N vectors, V codes, D dimensions. Training costs N V D multiply-adds for the soft codes besides the search; their N x V
matrix is made `BLOCK_VALUES` at a time and again in the backward pass, so memory does not grow with it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from multitok.codebook import nearest_code, quantize_straight_through
from multitok.quantize.gradients import product, straight_through
from multitok.quantize.learning import mean_over_ranks
from multitok.quantize.quantizer import Quantizer, QuantizerOutput, check_positive, entropy, mean_square

# Soft codes made at once, 64 MiB.
BLOCK_VALUES = 2**24


class IBQ(Quantizer):
    """Index backpropagation quantisation: the code with the largest dot product; all codes learn from every vector.

    `quantized` is the code vector, with two gradients: through the hard choice to the code vector chosen, and through
    the soft codes softmax(vectors @ codebook.T) to the vectors and to the codebook. That is the gradient of
    `(hard + soft - soft.detach()) @ codebook`. The paper's double quantisation loss is commitment_loss and
    codebook_loss with the mean square of `quantized - vectors`. A code is a row number; ties go to the lowest.

    Args:
        dim: D.
        codebook_size: V.
        entropy_temperature: Temperature of the soft codes in the entropy loss.
        sync: The entropy loss takes the mean soft codes over all ranks where there is a process group.

    Raises:
        SpecError: An argument cannot be.

    Source:
        Shi et al. 2024, "Scalable Image Tokenization with Index Backpropagation Quantization", section 3.2, eq. 5 to 8.
    """

    def __init__(self, dim: int, codebook_size: int, *, entropy_temperature: float = 0.01, sync: bool = True) -> None:
        super().__init__(dim, (codebook_size,))
        self.entropy_temperature, self.sync = check_positive("entropy_temperature", entropy_temperature), sync
        self.codebook = nn.Parameter(torch.randn(codebook_size, dim, dtype=torch.float32) * dim**-0.5)

    def code_vectors(self) -> torch.Tensor:
        """What the codes stand for, [V, D] float32."""
        return self.codebook

    def _forward(self, vectors: torch.Tensor) -> QuantizerOutput:
        picked, codes = quantize_straight_through(vectors.detach(), self.codebook, metric="dot")
        commitment_loss = mean_square(vectors, picked.detach())
        codebook_loss = mean_square(picked, vectors.detach())
        quantized, entropy_loss = picked, torch.zeros_like(commitment_loss)
        if torch.is_grad_enabled():
            carrier, entropy_loss = self._soften(vectors.reshape(-1, self.dim))
            quantized = straight_through(carrier.reshape(vectors.shape), picked)
        return QuantizerOutput(quantized, codes[..., None], commitment_loss, codebook_loss, entropy_loss)

    def _encode(self, vectors: torch.Tensor) -> torch.Tensor:
        return nearest_code(vectors, self.codebook, metric="dot")[..., None]

    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        return self.codebook.index_select(0, codes.reshape(-1)).reshape(*codes.shape[:-1], self.dim)

    def _soften(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What carries the gradient of the soft codes [N, D], and the entropy loss."""
        count, size = len(rows), self.codebook_sizes[0]
        step = max(BLOCK_VALUES // size, 1)
        if count <= step:
            carrier, own, total = self._soften_block(rows, self.codebook)
        else:
            blocks = [
                checkpoint(self._soften_block, part, self.codebook, use_reentrant=False, preserve_rng_state=False)
                for part in torch.split(rows, step)
            ]
            carrier = torch.cat([block[0] for block in blocks])
            own = torch.stack([block[1] for block in blocks]).sum()
            total = torch.stack([block[2] for block in blocks]).sum(dim=0)
        if not self.training:
            return carrier, own
        mean = mean_over_ranks(total, count) if self.sync else total / max(count, 1)
        return carrier, own / max(count, 1) - entropy(mean)

    def _soften_block(
        self, rows: torch.Tensor, codebook: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Carrier [n, D], sum of the entropies of the soft codes, sum of the soft codes [V]."""
        logits = product(rows, codebook.T)
        carrier = product(torch.softmax(logits, dim=1), codebook.detach())
        if not self.training:
            return carrier, logits.new_zeros(()), logits.new_zeros(codebook.shape[0])
        log_soft = torch.log_softmax(logits / self.entropy_temperature, dim=1)
        soft = log_soft.exp()
        return carrier, -(soft * log_soft).sum(), soft.sum(dim=0)

    def extra_repr(self) -> str:
        """What `print` shows of this module."""
        return f"dim={self.dim}, codebook_size={self.codebook_sizes[0]}"
