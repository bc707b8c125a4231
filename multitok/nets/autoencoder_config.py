"""The shape of an n-D autoencoder, as plain numbers; imports no framework."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from multitok.errors import SpecError

Sizes = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Shape of an autoencoder.

    Args:
        patch: (pt, ph, pw) raw units per grid step; ph and pw even.
        channels: C.
        latent_dim: D.
        codebook_sizes: V of each codebook.
        tables: G, tables of each codebook but the first.
        taps: Frames that the first convolution of each net sees: (0,), (-1, 0) or (-1, 0, 1).
        fine_width: Channels of the nets at half the grid's step.
        coarse_width: Channels at the grid.
        context_width: Channels of the context nets.
        encoder_blocks: Residual blocks of the encoder, (fine, coarse); None leaves the linear stem alone.
        decoder_blocks: Residual blocks of the decoder, (fine, coarse).
        lookahead: How many of the nearest codes are tried for what they leave to the next codebook; 1 takes the
            nearest. Encoding only.

    Raises:
        SpecError: A size cannot be.
    """

    patch: Sizes
    channels: int = 3
    latent_dim: int = 32
    codebook_sizes: tuple[int, ...] = (1024, 1024, 1024, 1024)
    tables: int = 16
    taps: tuple[int, ...] = (0,)
    fine_width: int = 64
    coarse_width: int = 128
    context_width: int = 96
    encoder_blocks: tuple[int, int] | None = (2, 2)
    decoder_blocks: tuple[int, int] = (2, 2)
    lookahead: int = 1

    def __post_init__(self) -> None:
        for field in ("patch", "codebook_sizes", "taps", "encoder_blocks", "decoder_blocks"):
            value = getattr(self, field)
            object.__setattr__(self, field, None if value is None else tuple(value))
        if len(self.patch) != 3 or min(self.patch) < 1 or self.patch[1] % 2 or self.patch[2] % 2:
            raise SpecError(f"patch={self.patch}: give (pt, ph, pw), ph and pw even")
        if self.taps not in ((0,), (-1, 0), (-1, 0, 1)):
            raise SpecError(f"taps={self.taps}: give (0,), (-1, 0) or (-1, 0, 1)")
        if not 1 <= self.latent_dim <= self.patch_length or not self.codebook_sizes or self.tables < 1:
            raise SpecError(
                f"latent_dim={self.latent_dim}, codebook_sizes={self.codebook_sizes}, tables={self.tables}: "
                f"give 1 to {self.patch_length} latents, at least one codebook and one table"
            )

        if not 1 <= self.lookahead <= min(16, *self.codebook_sizes):
            raise SpecError(f"lookahead={self.lookahead}: give 1 to 16, at most the size of a codebook")

    @property
    def patch_length(self) -> int:
        """Values in a patch."""
        return self.patch[0] * self.patch[1] * self.patch[2] * self.channels

    @property
    def fine_patch(self) -> Sizes:
        """Patch of the fine grid: half a patch in height and width."""
        return self.patch[0], self.patch[1] // 2, self.patch[2] // 2

    @property
    def num_codebooks(self) -> int:
        """K."""
        return len(self.codebook_sizes)

    def tables_of(self, k: int) -> int:
        """Tables of codebook k."""
        return 1 if k == 0 else self.tables

    def to_json(self) -> dict[str, Any]:
        """JSON values that `AutoencoderConfig(**values)` takes."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
