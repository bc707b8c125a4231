"""`GroupedVQ`: the dimensions in groups, each quantised on its own. D dimensions, K codebooks. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from multitok.errors import SpecError
from multitok.quantize.quantizer import Quantizer, QuantizerOutput


class GroupedVQ(Quantizer):
    """Product quantisation: the first dimensions go to the first quantiser, the next to the second, and so on.

        [ D_0 | D_1 | D_2 ]     codes [ codes of group 0 | of group 1 | of group 2 ]

    Any quantiser can be a group, also one of several codebooks: groups of `ResidualVQ` are grouped residual VQ, groups
    of `FSQ` are grouped FSQ. commitment_loss and codebook_loss are means over all values, entropy_loss is the sum over
    the groups.

    Args:
        quantizers: One a group; their dimensions add up to D.

    Raises:
        SpecError: There is no group, or one is not a quantiser.

    Source:
        Jégou et al. 2011, "Product Quantization for Nearest Neighbor Search", section II-B.
    """

    def __init__(self, quantizers: Sequence[Quantizer]) -> None:
        for i, quantizer in enumerate(quantizers):
            if not isinstance(quantizer, Quantizer):
                raise SpecError(f"group {i} is a {type(quantizer).__name__}: give a quantiser of multitok.quantize")
        if not quantizers:
            raise SpecError("no groups given: give at least one quantiser")
        super().__init__(
            sum(quantizer.dim for quantizer in quantizers),
            [size for quantizer in quantizers for size in quantizer.codebook_sizes],
        )
        self.groups = nn.ModuleList(quantizers)

    def _quantizers(self) -> list[Quantizer]:
        return [group for group in self.groups if isinstance(group, Quantizer)]

    def _forward(self, vectors: torch.Tensor) -> QuantizerOutput:
        groups = self._quantizers()
        found = [
            group._forward(part)
            for group, part in zip(groups, torch.split(vectors, [group.dim for group in groups], dim=-1), strict=True)
        ]
        shares = [group.dim / self.dim for group in groups]
        return QuantizerOutput(
            torch.cat([each.quantized for each in found], dim=-1),
            torch.cat([each.codes for each in found], dim=-1),
            torch.stack([each.commitment_loss * share for each, share in zip(found, shares, strict=True)]).sum(),
            torch.stack([each.codebook_loss * share for each, share in zip(found, shares, strict=True)]).sum(),
            torch.stack([each.entropy_loss for each in found]).sum(),
        )

    def _encode(self, vectors: torch.Tensor) -> torch.Tensor:
        groups = self._quantizers()
        parts = torch.split(vectors, [group.dim for group in groups], dim=-1)
        return torch.cat([group._encode(part) for group, part in zip(groups, parts, strict=True)], dim=-1)

    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        groups = self._quantizers()
        parts = torch.split(codes, [group.num_codebooks for group in groups], dim=-1)
        return torch.cat([group._decode(part) for group, part in zip(groups, parts, strict=True)], dim=-1)
