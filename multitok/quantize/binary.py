"""`LFQ` and `BSQ`: each dimension is one bit, its sign; no codebook to look up or to learn.

A bit is 1 where the latent value is larger than its threshold, which is 0: exact on every machine. What the entropy
loss needs, the soft codes p(code) ~ exp(-inverse_temperature * |vector - code vector|^2), falls apart into bits, since
code vectors are all combinations of signs. N vectors, K codebooks, D dimensions. This module imports torch.
"""

from __future__ import annotations

import torch
from torch.nn.functional import softplus

from multitok.errors import SpecError
from multitok.quantize.gradients import product, straight_through, unit_rows
from multitok.quantize.learning import mean_over_ranks
from multitok.quantize.quantizer import Quantizer, QuantizerOutput, check_finite, check_positive, entropy, mean_square

MOST_BITS = 30


class BinaryQuantizer(Quantizer):
    """Base of LFQ and BSQ; see there for the arguments.

    Args:
        dim: D.
        num_codebooks: K.
        scale: Code vectors have the values -scale and scale.
        big_endian: Whether the first dimension of a codebook is the highest bit of its code.
        inverse_temperature: Of the soft codes.
        diversity: Weight of the entropy of the mean soft codes.
        entropy_bits: Bits whose mean soft codes are counted together.
        sync: Mean soft codes over all ranks.

    Raises:
        SpecError: An argument cannot be.
    """

    thresholds: torch.Tensor
    weights: torch.Tensor

    def __init__(
        self,
        dim: int,
        *,
        num_codebooks: int,
        scale: float,
        big_endian: bool,
        inverse_temperature: float,
        diversity: float,
        entropy_bits: int,
        sync: bool,
    ) -> None:
        bits = dim // max(num_codebooks, 1)
        if num_codebooks < 1 or dim != bits * num_codebooks or not 1 <= bits <= MOST_BITS:
            raise SpecError(
                f"dim={dim}, num_codebooks={num_codebooks}: give a multiple, with 1 to {MOST_BITS} bits a codebook"
            )
        if not 1 <= entropy_bits <= 16:
            raise SpecError(f"entropy_bits={entropy_bits}: give 1 to 16; the cost doubles with each")
        super().__init__(dim, (2**bits,) * num_codebooks)
        self.bits, self.scale, self.entropy_bits, self.sync = bits, scale, entropy_bits, sync
        self.inverse_temperature = check_positive("inverse_temperature", inverse_temperature)
        self.diversity = diversity
        # As the other quantisers have them: [D, 1].
        self.register_buffer("thresholds", torch.zeros(dim, 1))
        weights = 2 ** torch.arange(bits)
        self.register_buffer("weights", weights.flip(0) if big_endian else weights, persistent=False)

    def to_bits(self, codes: torch.Tensor) -> torch.Tensor:
        """The bit of each dimension.

        Args:
            codes: [..., K] integers.

        Returns:
            [..., D] booleans.

        Raises:
            ShapeError: Not integers [..., K].
            CodeRangeError: A code lies outside its codebook.
        """
        self._check_codes(codes)
        return self._to_bits(codes)

    def from_bits(self, bits: torch.Tensor) -> torch.Tensor:
        """The codes of the bits of all dimensions; `to_bits` undoes it.

        Args:
            bits: [..., D] booleans.

        Returns:
            [..., K] int64.
        """
        grouped = bits.reshape(*bits.shape[:-1], self.num_codebooks, self.bits)
        return (grouped * self.weights).sum(dim=-1)

    def _target(self, vectors: torch.Tensor) -> torch.Tensor:
        """What is drawn to the code vectors."""
        return vectors

    def _forward(self, vectors: torch.Tensor) -> QuantizerOutput:
        codes, target = self._encode(vectors), self._target(vectors)
        values = self._decode(codes)
        commitment_loss = mean_square(target, values)
        zero = torch.zeros_like(commitment_loss)
        entropy_loss = self._entropy_loss(target.reshape(-1, self.dim)) if self.training else zero.clone()
        return QuantizerOutput(straight_through(target, values), codes, commitment_loss, zero, entropy_loss)

    def _encode(self, vectors: torch.Tensor) -> torch.Tensor:
        check_finite(vectors)
        return self.from_bits(vectors.detach() > self.thresholds[:, 0])

    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        return torch.where(self._to_bits(codes), self.scale, -self.scale).float()

    def _to_bits(self, codes: torch.Tensor) -> torch.Tensor:
        return ((codes[..., None] & self.weights) != 0).reshape(*codes.shape[:-1], self.dim)

    def _entropy_loss(self, target: torch.Tensor) -> torch.Tensor:
        """Over all codebooks: mean entropy of a vector's soft codes - diversity * entropy of the mean soft codes."""
        # Half the log odds of each bit.
        logits = target * (2 * self.inverse_temperature * self.scale)
        p = torch.sigmoid(2 * logits)
        own = (softplus(2 * logits) - 2 * logits * p).sum() / max(len(target), 1)
        together = own.new_zeros(())
        for codebook in torch.split(logits, self.bits, dim=1):
            for part in torch.split(codebook, self.entropy_bits, dim=1):
                together = together + entropy(self._mean_soft_code(part))
        return own - self.diversity * together

    def _mean_soft_code(self, logits: torch.Tensor) -> torch.Tensor:
        """Mean over the vectors of all ranks of the soft codes of a few bits: [n, b] -> [2^b]."""
        count, bits = logits.shape
        numbers = torch.arange(2**bits, device=logits.device)
        signs = ((numbers[None, :] >> torch.arange(bits, device=logits.device)[:, None]) & 1) * 2.0 - 1
        total = torch.softmax(product(logits, signs), dim=1).sum(dim=0)
        return mean_over_ranks(total, count) if self.sync else total / max(count, 1)


class LFQ(BinaryQuantizer):
    """Lookup-free quantisation: code vectors are all vectors of -1 and 1.

    A code is little-endian, as in Open-MAGVIT2: dimension d of a codebook is bit d of the code. (magvit2 in
    vector-quantize-pytorch is big-endian: reverse the dimensions.) Bit 1 stands for 1, bit 0 for -1; a latent value of
    exactly 0 gets bit 0.

    Args:
        dim: D, all bits together.
        num_codebooks: K; the dimensions are divided among them evenly, in order. A codebook has at most 30 bits.
        inverse_temperature: Of the soft codes in the entropy loss.
        diversity: Weight of the second term of the entropy loss, the entropy of the mean soft codes.
        entropy_bits: Bits whose mean soft codes are counted together, 1 to 16. A codebook of more bits takes several
            groups, whose entropies add up to an upper bound of the whole; the cost is N 2^entropy_bits for each.
        sync: The entropy loss takes the mean soft codes over all ranks where there is a process group.

    Raises:
        SpecError: An argument cannot be.

    Source:
        Yu et al. 2023, "Language Model Beats Diffusion: Tokenizer is Key to Visual Generation", section 3.1, eq. 5;
        the order of bits: Luo et al. 2024, "Open-MAGVIT2".
    """

    def __init__(
        self,
        dim: int,
        *,
        num_codebooks: int = 1,
        inverse_temperature: float = 100.0,
        diversity: float = 1.0,
        entropy_bits: int = 9,
        sync: bool = True,
    ) -> None:
        super().__init__(
            dim, num_codebooks=num_codebooks, scale=1.0, big_endian=False, inverse_temperature=inverse_temperature,
            diversity=diversity, entropy_bits=entropy_bits, sync=sync,
        )  # fmt: skip


class BSQ(BinaryQuantizer):
    """Binary spherical quantisation: vectors are scaled to length 1, code vectors are corners of a cube on the sphere.

    Values are -1 / sqrt(D) and 1 / sqrt(D). A code is big-endian: the first dimension of a codebook is the highest bit
    of its code. The bits are the signs of the vectors as given, so scaling decides nothing; it carries the gradients
    and the losses. A latent value of exactly 0 gets bit 0.

    Args:
        dim: D, all bits together.
        num_codebooks: As for `LFQ`; the length is that of all dimensions.
        inverse_temperature: As for `LFQ`.
        diversity: As for `LFQ`.
        entropy_bits: As for `LFQ`.
        sync: As for `LFQ`.

    Raises:
        SpecError: An argument cannot be.

    Source:
        Zhao et al. 2024, "Image and Video Tokenization with Binary Spherical Quantization", section 3.2 and 3.3.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_codebooks: int = 1,
        inverse_temperature: float = 100.0,
        diversity: float = 1.0,
        entropy_bits: int = 9,
        sync: bool = True,
    ) -> None:
        super().__init__(
            dim, num_codebooks=num_codebooks, scale=max(dim, 1) ** -0.5, big_endian=True,
            inverse_temperature=inverse_temperature, diversity=diversity, entropy_bits=entropy_bits, sync=sync,
        )  # fmt: skip

    def _target(self, vectors: torch.Tensor) -> torch.Tensor:
        return unit_rows(vectors)
