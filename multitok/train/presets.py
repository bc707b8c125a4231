"""What the shipped autoencoders are and how they are trained: shape, crop, batch and length. Imports no framework.

image-f8       8 x 8 pixels a grid step, 4 x 1,024 codes    .625 bits per pixel, .156 with the first codebook alone
image-f8-8     the same with 8 codebooks                    1.25 bits per pixel
image-f16      16 x 16 pixels, one codebook of 4,096        .047 bits per pixel: a grid of single tokens
image-small    4 x 4 pixels, 2 x 1,024                      1.25 bits per pixel, for pictures of 32 to 64 pixels
video-4x8x8    4 frames x 8 x 8 pixels, 4 x 1,024           .156 bits per pixel
volume-4       4 x 4 x 4 voxels, 4 x 1,024                  .625 bits per voxel
voxels-8       8 x 8 x 8 voxels, 2 x 1,024                  .039 bits per voxel, for occupancy grids of meshes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from multitok.errors import SpecError
from multitok.nets.autoencoder_config import AutoencoderConfig, Sizes
from multitok.protocol import Modality


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Shape of an autoencoder and the length of its training; `dataclasses.replace` makes another.

    Args:
        modality: Image, video or volume.
        autoencoder: Its shape.
        crop: (T, H, W) of a training crop, multiples of the patch.
        batch: Crops a step, on each rank.
        steps: Optimiser steps.
        learning_rate: Its peak.
        dropout: Chance that a step decodes fewer than all codebooks.
        level_weights: How often the first 1, 2, ... K codebooks are decoded, in place of `dropout`; relative.
        trains: "decoder" leaves the codes as the start made them, and trains what decodes them: most for minutes to
            hours. "everything" moves encoder, contexts and codebooks along.
        start_crops: Crops that the start is fitted to, at most.
        context_steps: Gradient steps of each context net at the start.
        kmeans_iterations: Passes of each k-means at the start.
        start_dims: How many of the latents each codebook describes at the start, the leading ones; none means all.
        short_sides: Pictures and frames are scaled so that their short side is one of these, where they are (almost)
            as large; smaller ones, and all where there are no choices, stay as they are.

    Raises:
        SpecError: A size cannot be.
    """

    modality: Modality
    autoencoder: AutoencoderConfig
    crop: Sizes
    batch: int
    steps: int
    learning_rate: float = 1e-3
    dropout: float = 0.4
    level_weights: tuple[float, ...] = ()
    trains: Literal["decoder", "everything"] = "decoder"
    start_crops: int = 3000
    context_steps: int = 500
    kmeans_iterations: int = 8
    start_dims: tuple[int, ...] = ()
    short_sides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        patch = self.autoencoder.patch
        for name in ("crop", "short_sides", "level_weights", "start_dims"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.crop) != 3 or any(side < step or side % step for side, step in zip(self.crop, patch, strict=True)):
            raise SpecError(f"crop={self.crop}: give three multiples of the patch {patch}")
        for name in ("level_weights", "start_dims"):
            values = getattr(self, name)
            if values and (len(values) != self.autoencoder.num_codebooks or min(values) < 0 or sum(values) <= 0):
                raise SpecError(f"{name}={values}: give one for each of {self.autoencoder.num_codebooks} codebooks")
        if self.trains not in ("decoder", "everything"):
            raise SpecError(f"trains={self.trains!r}: give 'decoder' or 'everything'")
        if self.modality not in (Modality.IMAGE, Modality.VIDEO, Modality.VOLUME):
            raise SpecError(f"modality={self.modality}: autoencoders are trained for image, video and volume")
        if self.modality is Modality.IMAGE and (self.crop[0] != 1 or patch[0] != 1):
            raise SpecError(f"crop={self.crop}, patch={patch}: a picture is one frame")
        channels = 1 if self.modality is Modality.VOLUME else 3
        if self.autoencoder.channels != channels:
            raise SpecError(f"channels={self.autoencoder.channels}: a raw {self.modality} has {channels}")
        counts = (self.batch, self.steps, self.start_crops, self.context_steps, self.kmeans_iterations)
        if min(counts) < 1 or not 0 < self.learning_rate < 1 or not 0 <= self.dropout <= 1:
            raise SpecError(
                f"batch, steps, start_crops, context_steps, kmeans_iterations={counts}, learning_rate="
                f"{self.learning_rate}, dropout={self.dropout}: give counts of 1 or more and rates below 1"
            )

    def to_json(self) -> dict[str, Any]:
        """JSON values that `from_json` takes."""
        data = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return data | {"modality": self.modality.value, "autoencoder": self.autoencoder.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preset:
        """The preset that `to_json` wrote."""
        shape = AutoencoderConfig(**data["autoencoder"])
        return cls(**{**data, "modality": Modality(data["modality"]), "autoencoder": shape})


# Without an encoder net the codes come from the linear stem, and need no training beyond the start.
_LINEAR: dict[str, Any] = {"encoder_blocks": None, "lookahead": 2}
_CLEAR: dict[str, Any] = {"decoder_blocks": (2, 3), **_LINEAR}
_QUICK: dict[str, Any] = _CLEAR | {"lookahead": 1}
_SMALL: dict[str, Any] = {"decoder_blocks": (1, 2), **_LINEAR}


def _image(patch: int, latents: int, sizes: tuple[int, ...], **shape: Any) -> AutoencoderConfig:
    return AutoencoderConfig(patch=(1, patch, patch), latent_dim=latents, codebook_sizes=sizes, **shape)


PRESETS: dict[str, Preset] = {
    "image-f8": Preset(
        modality=Modality.IMAGE, autoencoder=_image(8, 48, (1024,) * 4, tables=24, **_QUICK),
        crop=(1, 192, 192), batch=7, steps=7000, start_crops=10_000, context_steps=800, short_sides=(512, 1024),
        start_dims=(32,) * 4, level_weights=(0.15, 0.15, 0.15, 0.55),
    ),
    "image-f8-8": Preset(
        modality=Modality.IMAGE, autoencoder=_image(8, 48, (1024,) * 8, tables=24, **_QUICK),
        crop=(1, 192, 192), batch=7, steps=7000, start_crops=10_000, context_steps=800, short_sides=(512, 1024),
        start_dims=(32,) * 4 + (48,) * 4, level_weights=(0.1, 0.1, 0.1, 0.4, 0.0, 0.1, 0.0, 0.2),
    ),
    "image-f16": Preset(
        modality=Modality.IMAGE, autoencoder=_image(16, 64, (4096,), **_QUICK),
        crop=(1, 192, 192), batch=7, steps=2000, start_crops=5000, kmeans_iterations=10, short_sides=(512, 1024),
    ),
    "image-small": Preset(
        modality=Modality.IMAGE, autoencoder=_image(4, 24, (1024,) * 2, **_SMALL),
        crop=(1, 32, 32), batch=96, steps=1000, start_crops=10_000, context_steps=400, kmeans_iterations=6,
        short_sides=(32, 48, 64, 96), level_weights=(0.3, 0.7),
    ),
    "video-4x8x8": Preset(
        modality=Modality.VIDEO,
        autoencoder=AutoencoderConfig(patch=(4, 8, 8), latent_dim=64, taps=(-1, 0), **_CLEAR),
        crop=(16, 128, 128), batch=3, steps=1500, start_crops=2400, kmeans_iterations=6,
        start_dims=(48, 48, 64, 64), level_weights=(0.15, 0.15, 0.15, 0.55),
    ),
    "volume-4": Preset(
        modality=Modality.VOLUME,
        autoencoder=AutoencoderConfig(patch=(4, 4, 4), channels=1, latent_dim=32, taps=(-1, 0, 1), **_SMALL),
        crop=(48, 48, 48), batch=3, steps=2200, start_crops=900, kmeans_iterations=6,
        level_weights=(0.15, 0.15, 0.15, 0.55),
    ),
    "voxels-8": Preset(
        modality=Modality.VOLUME,
        autoencoder=AutoencoderConfig(
            patch=(8, 8, 8), channels=1, latent_dim=64, codebook_sizes=(1024, 1024), taps=(-1, 0, 1), **_SMALL
        ),
        crop=(64, 64, 64), batch=2, steps=600, start_crops=900, context_steps=300, level_weights=(0.3, 0.7),
    ),
}  # fmt: skip

DEFAULT_PRESETS = {Modality.IMAGE: "image-f8", Modality.VIDEO: "video-4x8x8", Modality.VOLUME: "volume-4"}


def preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        SpecError: There is none of that name.
    """
    if name not in PRESETS:
        raise SpecError(f"preset {name!r}: give one of {', '.join(PRESETS)}, or a Preset of your own")
    return PRESETS[name]
