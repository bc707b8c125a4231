"""`ResidualVQ`: each level quantises what the levels before it left over, as a module with gradients.

    vector --- level 0 --> code 0
       | minus code vector 0
    residual - level 1 --> code 1
       | minus code vector 1
    residual ...                      quantized = code vector 0 + code vector 1 + ..., added in this order

A prefix of the codes decodes to a coarser vector, so every number of levels can be used after training with quantiser
dropout. N vectors, K levels, D dimensions, b beams. This module imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from multitok.codebook import Codebook
from multitok.codebook.native import MAX_NEAREST
from multitok.errors import ShapeError, SpecError
from multitok.quantize.gradients import rotate, straight_through
from multitok.quantize.quantizer import Quantizer, QuantizerOutput, check_num_codebooks, check_share, level_counts
from multitok.quantize.vector_quantizer import LookupQuantizer

# Values of candidate residuals that a beam search holds at once, 16 MiB.
BEAM_VALUES = 2**22
# Stands in for the codes of levels that quantiser dropout left out.
DROPPED = -1


class ResidualVQ(Quantizer):
    """K levels on successive residuals; codes are in the order of the levels.

    The gradient of `quantized` passes straight through to the vectors once, however many levels there are. Losses are
    means over the levels used; each level's see its own residual, and reach the vectors but no other level.

    Quantiser dropout leaves the last levels of an item (first axis of the vectors) out of `quantized` and of its
    losses; the codes there are -1, which `decode` takes as nothing to add. Statistics of all levels learn from all
    items, so they do not depend on the draws.

    Args:
        quantizers: The levels, `VectorQuantizer` or `SimVQ`, of one D; sizes may differ.
        dropout: Share of the items that use a random number of levels in training, see `level_counts`.
        rotation_trick: Gradients of `quantized` by the rotation trick instead of straight through.

    Raises:
        SpecError: There is no level, one is of another class, they differ in D, or `dropout` is no share.

    Source:
        Zeghidour et al. 2021, "SoundStream", algorithm 1; beams: Babenko and Lempitsky 2014, "Additive Quantization",
        section 3.1.
    """

    def __init__(
        self, quantizers: Sequence[LookupQuantizer], *, dropout: float = 0.0, rotation_trick: bool = False
    ) -> None:
        for k, level in enumerate(quantizers):
            if not isinstance(level, LookupQuantizer):
                raise SpecError(f"level {k} is a {type(level).__name__}: give VectorQuantizer or SimVQ")
            if level.dim != quantizers[0].dim:
                raise SpecError(
                    f"level {k} has D = {level.dim}, level 0 has D = {quantizers[0].dim}: all must be equal"
                )
        if not quantizers:
            raise SpecError("no levels given: give at least one quantiser")
        super().__init__(quantizers[0].dim, [level.codebook_sizes[0] for level in quantizers])
        self.levels = nn.ModuleList(quantizers)
        self.dropout, self.rotation_trick = check_share("dropout", dropout), rotation_trick

    def forward(self, vectors: torch.Tensor, num_codebooks: int | torch.Tensor | None = None) -> QuantizerOutput:
        """Quantise with gradients; in training mode the levels learn.

        Args:
            vectors: [..., D] of any float dtype, finite.
            num_codebooks: k, how many levels to use, the first ones; None uses all, with dropout in training. Or how
                many each item uses, integers [items], in place of the draws of quantiser dropout.

        Returns:
            codes [..., k]; of all K levels where items use different numbers.

        Raises:
            ShapeError: Not a float tensor [..., D], or not one number for each item.
            InputError: A value is NaN or infinite.
            SpecError: `num_codebooks` is not 1 to K.
        """
        self._check_vectors(vectors)
        counts = None
        if isinstance(num_codebooks, torch.Tensor):
            counts, num_codebooks = self._check_counts(num_codebooks, vectors), None
        with torch.autocast(vectors.device.type, enabled=False):
            return self._forward(vectors.float(), num_codebooks, counts)

    def encode(self, vectors: torch.Tensor, num_codebooks: int | None = None, beam: int = 1) -> torch.Tensor:
        """Codes of vectors, without gradients; learns nothing.

        A beam search keeps the b best prefixes after each level, ranked by their squared error in float64; of equal
        ones the better prefix before, then the lower code. It finds smaller errors than the greedy search, about b
        times as slowly; from b = V on two levels are searched exhaustively.

        Args:
            vectors: [..., D] of any float dtype, finite.
            num_codebooks: k, how many levels to use, the first ones; None uses all.
            beam: b, 1 to 16; above 1 for levels of the metric "l2" only.

        Returns:
            [..., k] int64.

        Raises:
            ShapeError: Not a float tensor [..., D].
            InputError: A value is NaN or infinite.
            SpecError: `num_codebooks` or `beam` cannot be.
        """
        used = check_num_codebooks(num_codebooks, self.num_codebooks)
        if not 1 <= beam <= MAX_NEAREST:
            raise SpecError(f"beam={beam}: give 1 to {MAX_NEAREST}")
        levels = self._used(used)
        other = {level.metric for level in levels} - {"l2"}
        if beam > 1 and other:
            raise SpecError(f"beam={beam} ranks by squared error, but levels have the metric {min(other)}: give beam=1")
        self._check_vectors(vectors)
        with torch.no_grad(), torch.autocast(vectors.device.type, enabled=False):
            rows = vectors.float().reshape(-1, self.dim)
            codes = _search(levels, rows, beam) if beam > 1 else self._encode(rows, used)
            return codes.reshape(*vectors.shape[:-1], used)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """The sum of the code vectors, added from level 0 on; without gradients.

        Args:
            codes: [..., k] integers, 1 <= k <= K; -1 adds nothing.

        Returns:
            [..., D] float32.

        Raises:
            ShapeError: Not integers [..., k].
            CodeRangeError: A code lies outside its codebook.
        """
        self._check_codes(codes, fewest=1, smallest=DROPPED)
        with torch.no_grad(), torch.autocast(codes.device.type, enabled=False):
            return self._decode(codes.long())

    @torch.no_grad()
    def start_from(self, vectors: torch.Tensor) -> None:
        """Start each level's codebook in turn from what the levels before it leave of these vectors.

        Args:
            vectors: [..., D] of any float dtype, finite.

        Raises:
            ShapeError: Not a float tensor [..., D].
            InputError: A value is NaN or infinite.
        """
        residual = self._check_vectors(vectors).detach().float()
        for level in self._used(self.num_codebooks):
            level.start_from(residual)
            residual = residual - level.decode(level.encode(residual))

    def _used(self, count: int) -> list[LookupQuantizer]:
        return [level for level in self.levels[:count] if isinstance(level, LookupQuantizer)]

    def _check_counts(self, counts: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """How many levels each item uses, with as many axes as the vectors."""
        if vectors.ndim < 2 or counts.shape != vectors.shape[:1] or counts.is_floating_point():
            raise ShapeError(
                f"num_codebooks is {counts.dtype} {list(counts.shape)} for vectors {list(vectors.shape)}: give one "
                "integer for each item of the first axis"
            )
        for count in (int(counts.min()), int(counts.max())) if len(counts) else ():
            check_num_codebooks(count, self.num_codebooks)
        return counts.reshape(-1, *[1] * (vectors.ndim - 1))

    def _forward(
        self, vectors: torch.Tensor, num_codebooks: int | None = None, counts: torch.Tensor | None = None
    ) -> QuantizerOutput:
        used = check_num_codebooks(num_codebooks, self.num_codebooks)
        if self.training and self.dropout > 0 and num_codebooks is None and counts is None:
            counts = level_counts(vectors, used, self.dropout)
        residual, quantized = vectors, torch.zeros_like(vectors)
        codes, losses = [], []
        for k, level in enumerate(self._used(used)):
            found = level.look_up(residual)
            values, own, mask = found.picked.detach(), found.codes, None
            # What is left over learns from this level, but not through it.
            residual = residual - values
            if counts is not None:
                mask = counts > k
                values, own = torch.where(mask, values, 0), torch.where(mask[..., 0], own, DROPPED)
            quantized = quantized + values
            codes.append(own)
            losses.append(level.losses(found, mask))
        commitment_loss, codebook_loss = (torch.stack(each).mean() for each in zip(*losses, strict=True))
        quantized = (rotate if self.rotation_trick else straight_through)(vectors, quantized.detach())
        return QuantizerOutput(
            quantized, torch.stack(codes, dim=-1), commitment_loss, codebook_loss, torch.zeros_like(commitment_loss)
        )

    def _encode(self, vectors: torch.Tensor, used: int | None = None) -> torch.Tensor:
        residual, codes = vectors, []
        for level in self._used(used or self.num_codebooks):
            codes.append(level._encode(residual))
            residual = residual - level._decode(codes[-1])
        return torch.cat(codes, dim=-1)

    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        quantized = torch.zeros(*codes.shape[:-1], self.dim, device=codes.device)
        for k, level in enumerate(self._used(codes.shape[-1])):
            own = codes[..., k : k + 1]
            values = level._decode(own.clamp(min=0))
            quantized = quantized + torch.where(own == DROPPED, 0, values)
        return quantized


def _search(levels: list[LookupQuantizer], rows: torch.Tensor, beam: int) -> torch.Tensor:
    """Beam search [N, k], a block of rows at a time."""
    tables = [level.code_vectors().contiguous() for level in levels]
    prepared = [Codebook(table) for table in tables]
    codes = rows.new_empty(len(rows), len(levels), dtype=torch.int64)
    step = max(BEAM_VALUES // (beam * beam + beam * rows.shape[1]), 1)
    for start in range(0, len(rows), step):
        codes[start : start + step] = _search_block(prepared, tables, rows[start : start + step], beam)
    return codes


def _search_block(prepared: list[Codebook], tables: list[torch.Tensor], rows: torch.Tensor, beam: int) -> torch.Tensor:
    count, dim = rows.shape
    residuals, prefixes = rows[:, None], rows.new_empty(count, 1, 0, dtype=torch.int64)
    for codebook, table in zip(prepared, tables, strict=True):
        width = min(beam, codebook.size)
        near = codebook.search(residuals.reshape(-1, dim), k=width, distances=True)
        # A candidate's whole error is its residual's distance to the code. Of equal errors the earlier one stays first.
        errors, found = near.distances.reshape(count, -1), near.codes.reshape(count, -1)
        best = errors.argsort(dim=1, stable=True)[:, :beam]
        parents, own = (best // width)[..., None], found.gather(1, best)
        prefixes = torch.cat([prefixes.gather(1, parents.expand(-1, -1, prefixes.shape[2])), own[..., None]], dim=2)
        residuals = residuals.gather(1, parents.expand(-1, -1, dim)) - table[own]
    return prefixes[:, 0]
