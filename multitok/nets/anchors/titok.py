"""TiTok: a picture of one fixed size as a short row of codes, which belong to no place in it, under ByteDance's names.

    [B, 3, S, S] in [0, 1] -> patches + N latent tokens -> transformer -> the N tokens -> nearest code -> [B, 1, 1, N]
    codes + a mask token a patch -> transformer -> the patches -> pixels

Two generations. The first ends in the distribution over the 1024 codes of MaskGIT's VQGAN, whose decoder follows, and
compares with codes by their cosine; the second makes pixels itself and compares by distance. Two oddities of the first
are part of its checkpoints and kept: the encoder's tokens are laid out anew without being transposed before the last
convolution, and a residual block that changes the number of channels takes its shortcut from its result.

B items, S x S pixels, N latent tokens, D the length of a code vector, P patches, W width of a transformer.

Source:
    Yu et al. 2024, "An Image is Worth 32 Tokens for Reconstruction and Generation".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from multitok.nets.anchors.blocks import GroupNorm
from multitok.nets.anchors.lookup import VectorLookup
from multitok.nets.anchors.shapes import count, table

# Channels of an attention head in every published size.
HEAD_WIDTH = 64


@dataclass(frozen=True)
class PixelConfig:
    """Sizes of MaskGIT's VQGAN decoder.

    Args:
        codebook_size: Of its codes.
        dim: Length of its code vectors.
        widths: Channels of each resolution, the finest first.
        blocks: Residual blocks a resolution.
    """

    codebook_size: int
    dim: int
    widths: tuple[int, ...]
    blocks: int


@dataclass(frozen=True)
class TitokConfig:
    """The sizes of one checkpoint.

    Args:
        side: S.
        patch: Pixels along a side of a patch.
        latents: N.
        dim: D.
        codebook_size: Number of codes.
        encoder_width: W of the encoder.
        encoder_layers: Its layers.
        decoder_width: W of the decoder.
        decoder_layers: Its layers.
        cosine: Compare latents with codes by cosine.
        pixels: The decoder behind the decoder, in the first generation; None in the second.
    """

    side: int
    patch: int
    latents: int
    dim: int
    codebook_size: int
    encoder_width: int
    encoder_layers: int
    decoder_width: int
    decoder_layers: int
    cosine: bool
    pixels: PixelConfig | None

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]], *, cosine: bool | None = None) -> TitokConfig:
        """The sizes that a checkpoint's shapes tell.

        Args:
            shapes: Of every tensor, by its name.
            cosine: Compare by cosine; None does so in the first generation.

        Raises:
            KeyError: A tensor that tells a size is missing.
        """
        first_generation = "decoder.ffn.2.weight" in shapes
        patch = shapes["encoder.patch_embed.weight"][2]
        positions = shapes["encoder.positional_embedding"][0]
        codebook_size, dim = shapes["quantize.embedding.weight"]
        return cls(
            side=patch * math.isqrt(positions - 1),
            patch=patch,
            latents=shapes["latent_tokens"][0],
            dim=dim,
            codebook_size=codebook_size,
            encoder_width=shapes["encoder.ln_pre.weight"][0],
            encoder_layers=count(shapes, r"encoder\.transformer\.(\d+)\."),
            decoder_width=shapes["decoder.ln_pre.weight"][0],
            decoder_layers=count(shapes, r"decoder\.transformer\.(\d+)\."),
            cosine=first_generation if cosine is None else cosine,
            pixels=_pixel_config(shapes) if first_generation else None,
        )


def _pixel_config(shapes: Mapping[str, tuple[int, ...]]) -> PixelConfig:
    codebook_size, dim = shapes["pixel_quantize.embedding.weight"]
    levels = count(shapes, r"pixel_decoder\.up\.(\d+)\.")
    return PixelConfig(
        codebook_size=codebook_size,
        dim=dim,
        widths=tuple(shapes[f"pixel_decoder.up.{i}.block.0.conv1.weight"][0] for i in range(levels)),
        blocks=count(shapes, r"pixel_decoder\.mid\.(\d+)\."),
    )


class Layer(nn.Module):
    """One layer of a transformer: attention, then two linear maps, each around a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // HEAD_WIDTH, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, W] -> the same."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        out: Tensor = x + self.mlp["c_proj"](functional.gelu(self.mlp["c_fc"](self.ln_2(x))))
        return out


class Transformer(nn.Module):
    """What encoder and decoder share: a class token, P patches and N latents with their positions, through layers."""

    def __init__(self, patches: int, latents: int, width: int, layers: int) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(1, width))
        self.positional_embedding = nn.Parameter(torch.zeros(patches + 1, width))
        self.latent_token_positional_embedding = nn.Parameter(torch.zeros(latents, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.ModuleList(Layer(width) for _ in range(layers))
        self.ln_post = nn.LayerNorm(width)

    def run(self, patches: Tensor, latents: Tensor) -> Tensor:
        """[B, P, W] and [B, N, W] -> [B, 1 + P + N, W], before the last norm."""
        first = self.class_embedding.expand(len(patches), -1, -1)
        image = torch.cat((first, patches), 1) + self.positional_embedding
        x = self.ln_pre(torch.cat((image, latents + self.latent_token_positional_embedding), 1))
        for layer in self.transformer:
            x = layer(x)
        out: Tensor = x
        return out


class Encoder(Transformer):
    """Pixels [B, 3, S, S] to latents [B, D, 1, N]."""

    def __init__(self, config: TitokConfig) -> None:
        patches = (config.side // config.patch) ** 2
        super().__init__(patches, config.latents, config.encoder_width, config.encoder_layers)
        self.transposes = config.pixels is None
        self.patch_embed = nn.Conv2d(3, config.encoder_width, config.patch, stride=config.patch)
        self.conv_out = nn.Conv2d(config.encoder_width, config.dim, 1)

    def forward(self, pixels: Tensor, latent_tokens: Tensor) -> Tensor:
        """Latents of pixels."""
        patches = self.patch_embed(pixels).flatten(2).transpose(1, 2)
        x = self.run(patches, latent_tokens.expand(len(pixels), -1, -1))
        tokens = self.ln_post(x[:, 1 + patches.shape[1] :])
        tokens = tokens.transpose(1, 2) if self.transposes else tokens.reshape(len(x), x.shape[2], -1)
        out: Tensor = self.conv_out(tokens[..., None]).transpose(2, 3)
        return out


class Decoder(Transformer):
    """Code vectors [B, D, 1, N] to pixels [B, 3, S, S] or to the logits of pixel codes [B, V, S / patch, S / patch]."""

    def __init__(self, config: TitokConfig) -> None:
        width = config.decoder_width
        self.grid = config.side // config.patch
        super().__init__(self.grid**2, config.latents, width, config.decoder_layers)
        self.decoder_embed = nn.Linear(config.dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        steps: list[nn.Module] = [nn.Conv2d(width, 3 * config.patch**2, 1)]
        if config.pixels is not None:
            steps = [nn.Conv2d(width, 2 * width, 1), nn.Tanh(), nn.Conv2d(2 * width, config.pixels.codebook_size, 1)]
        self.ffn = nn.Sequential(*steps)
        self.conv_out = nn.Conv2d(3, 3, 3, padding=1) if config.pixels is None else None

    def forward(self, quantized: Tensor) -> Tensor:
        """Pixels or logits of code vectors."""
        latents = self.decoder_embed(quantized[:, :, 0].transpose(1, 2))
        x = self.run(self.mask_token.expand(len(latents), self.grid**2, -1), latents)
        patches = self.ln_post(x[:, 1 : 1 + self.grid**2])
        out: Tensor = self.ffn(patches.transpose(1, 2).reshape(len(x), -1, self.grid, self.grid))
        if self.conv_out is None:
            return out
        # Channels are (row in the patch, column in the patch, color).
        side = math.isqrt(out.shape[1] // 3)
        colors = out.reshape(len(x), side, side, 3, self.grid, self.grid).permute(0, 3, 4, 1, 5, 2)
        pixels: Tensor = self.conv_out(colors.flatten(2, 3).flatten(3, 4))
        return pixels


class PixelBlock(nn.Module):
    """Two convolutions around a skip; see the module's docstring for the shortcut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(before)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.norm2 = GroupNorm(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.nin_shortcut = None if before == after else nn.Conv2d(after, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H, W]."""
        inner: Tensor = self.conv1(functional.silu(self.norm1(x)))
        inner = self.conv2(functional.silu(self.norm2(inner)))
        return inner + (x if self.nin_shortcut is None else self.nin_shortcut(inner))


class PixelLevel(nn.Module):
    """The blocks of one resolution, then twice the sides where a finer one follows."""

    def __init__(self, widths: list[int], *, up: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(PixelBlock(*pair) for pair in pairwise(widths))
        self.upsample_conv = nn.Conv2d(widths[-1], widths[-1], 3, padding=1) if up else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the input of the next resolution."""
        for block in self.block:
            x = block(x)
        if self.upsample_conv is None:
            return x
        out: Tensor = self.upsample_conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class PixelDecoder(nn.Module):
    """MaskGIT's VQGAN decoder: code vectors [B, dim, h, w] to pixels [B, 3, H, W]."""

    def __init__(self, config: PixelConfig) -> None:
        super().__init__()
        widths = [*config.widths, config.widths[-1]]
        self.conv_in = nn.Conv2d(config.dim, widths[-1], 3, padding=1)
        self.mid = nn.ModuleList(PixelBlock(widths[-1], widths[-1]) for _ in range(config.blocks))
        self.up = nn.ModuleList(
            PixelLevel([widths[i + 1]] + [widths[i]] * config.blocks, up=i != 0) for i in range(len(config.widths))
        )
        self.norm_out = GroupNorm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, quantized: Tensor) -> Tensor:
        """Pixels of code vectors."""
        x = self.conv_in(quantized)
        for layer in (*self.mid, *reversed(self.up)):
            x = layer(x)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(x)))
        return out


class PixelCodes(nn.Module):
    """MaskGIT's codebook, under the name that the checkpoint gives it."""

    def __init__(self, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.embedding = table(codebook_size, dim)

    def forward(self, logits: Tensor) -> Tensor:
        """The expected code vectors [B, dim, h, w] of logits [B, V, h, w]."""
        return torch.einsum("bvhw,vd->bdhw", logits.softmax(1), self.embedding.weight)


class Titok(nn.Module):
    """The whole tokenizer.

    Args:
        config: The sizes.
    """

    def __init__(self, config: TitokConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.latent_tokens = nn.Parameter(torch.zeros(config.latents, config.encoder_width))
        self.quantize = VectorLookup(config.codebook_size, config.dim, "cosine" if config.cosine else "l2")
        self.pixel_quantize = (
            None if config.pixels is None else PixelCodes(config.pixels.codebook_size, config.pixels.dim)
        )
        self.pixel_decoder = None if config.pixels is None else PixelDecoder(config.pixels)

    def forward(self, pixels: Tensor) -> Tensor:
        """The reconstruction of [B, 3, S, S] in [0, 1], differentiable: gradients pass straight through the codes."""
        quantized: Tensor = self.quantize(self.encoder(pixels, self.latent_tokens))
        return self._decode(quantized)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] in [0, 1] -> codes [B, 1, 1, N]."""
        return self.quantize.encode(self.encoder(pixels, self.latent_tokens))[:, None]

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, 1, 1, N] -> [B, 3, S, S], about [0, 1]."""
        return self._decode(self.quantize.decode(codes[:, 0]))

    def _decode(self, quantized: Tensor) -> Tensor:
        out: Tensor = self.decoder(quantized)
        if self.pixel_decoder is not None and self.pixel_quantize is not None:
            out = self.pixel_decoder(self.pixel_quantize(out))
        return out
