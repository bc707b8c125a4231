"""Codes of latents and latents of codes in the published image tokenizers; B images, D dimensions, h x w positions.

    forward(latents [B, D, h, w]) -> the code vectors, with the gradient straight through to the latents
    encode(latents) -> codes [B, h, w]          decode(codes) -> code vectors [B, D, h, w]

Searches run in `multitok.codebook`: distances in float64, the lowest code on ties, the same on every machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from multitok.codebook import nearest_code

if TYPE_CHECKING:
    # Built alike, so a network holds any of the three.
    from typing import TypeAlias

    Lookup: TypeAlias = "VectorLookup | GumbelLookup | SignLookup"


class CodeTable(nn.Module):
    """A codebook as `nn.Embedding` has it, but for random first values: those are slow to make, and overwritten.

    Args:
        codebook_size: V.
        codebook_dim: D.
    """

    def __init__(self, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(codebook_size, codebook_dim))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Code vectors [..., D] of codes [...]."""
        return F.embedding(codes, self.weight)


class VectorLookup(nn.Module):
    """The nearest row of a codebook.

    Args:
        codebook_size: V.
        codebook_dim: D.
        metric: "l2"; or "cosine", which takes latents and rows to length 1 before anything else.
    """

    def __init__(self, codebook_size: int, codebook_dim: int, metric: str) -> None:
        super().__init__()
        self.embedding = CodeTable(codebook_size, codebook_dim)
        self.metric = metric

    def encode(self, latents: torch.Tensor) -> torch.Tensor:
        """Codes of latents."""
        vectors = latents.detach().permute(0, 2, 3, 1).float()
        return nearest_code(vectors, self.embedding.weight.detach().float(), metric=self.metric)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Code vectors of codes."""
        vectors: torch.Tensor = self.embedding(codes)
        if self.metric == "cosine":
            vectors = F.normalize(vectors, dim=-1)
        return vectors.permute(0, 3, 1, 2)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Code vectors of the latents' codes."""
        quantized = self.decode(self.encode(latents))
        if self.metric == "cosine":
            latents = F.normalize(latents, dim=1)
        return latents + (quantized - latents).detach()


class GumbelLookup(nn.Module):
    """The code with the largest logit, a linear function of the latents: what Gumbel noise is added to in training.

    Args:
        codebook_size: V.
        codebook_dim: D.
        latent_channels: Channels of the latents, from which the logits are made.
    """

    def __init__(self, codebook_size: int, codebook_dim: int, latent_channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(latent_channels, codebook_size, 1)
        self.embed = CodeTable(codebook_size, codebook_dim)

    def encode(self, latents: torch.Tensor) -> torch.Tensor:
        """Codes of latents."""
        # The bias is one more dimension, in which every vector is 1: then the largest logit is a dot product's.
        vectors = F.pad(latents.detach().permute(0, 2, 3, 1).float(), (0, 1), value=1.0)
        bias = self.proj.bias
        assert bias is not None
        rows = torch.cat([self.proj.weight.flatten(1), bias[:, None]], dim=1)
        return nearest_code(vectors, rows.detach().float(), metric="dot")

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Code vectors of codes."""
        vectors: torch.Tensor = self.embed(codes)
        return vectors.permute(0, 3, 1, 2)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Code vectors of the latents' codes, with the gradient of the expected code vector."""
        shares = self.proj(latents).softmax(1)
        expected = torch.einsum("bvhw,vd->bdhw", shares, self.embed.weight)
        return expected + (self.decode(self.encode(latents)) - expected).detach()


class SignLookup(nn.Module):
    """The sign of each dimension is one bit of the code, the first dimension the lowest: no table (LFQ).

    Args:
        codebook_dim: D; the codebook has 2^D codes.
    """

    def __init__(self, codebook_dim: int) -> None:
        super().__init__()
        self.codebook_dim = codebook_dim

    def encode(self, latents: torch.Tensor) -> torch.Tensor:
        """Codes of latents; 0 counts as negative."""
        powers = 2 ** torch.arange(self.codebook_dim, device=latents.device)
        return ((latents > 0) * powers[:, None, None]).sum(1)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Code vectors of codes, -1 and 1 in float32."""
        bits = codes[:, None] >> torch.arange(self.codebook_dim, device=codes.device)[:, None, None] & 1
        return bits.float() * 2 - 1

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Code vectors of the latents' codes."""
        return latents + (self.decode(self.encode(latents)) - latents).detach()
