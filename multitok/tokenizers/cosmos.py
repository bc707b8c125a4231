"""NVIDIA Cosmos' discrete tokenizers: `multitok.load(folder, kind="cosmos-image")`, `kind="cosmos-video"`.

Read are NVIDIA's folders with `encoder.jit` and `decoder.jit`, or `autoencoder.jit`, of which only the tensors are
taken; and the same tensors in a file of safetensors or torch. NVIDIA stores bfloat16 and runs in it; here the network
runs in float32, so a code may differ from NVIDIA's where rounding decides.

    cosmos-image    DI8x8, DI16x16                 grid (h, w)       h = H / 8 or / 16, rounded up
    cosmos-video    DV4x8x8, DV8x8x8, DV8x16x16    grid (t, h, w)    t = 1 + (T - 1) / 4 or / 8, rounded up

The shapes of a video checkpoint do not tell its compression, so its folder, or one above, has to keep "DV8x16x16" in
its name. The first frame has a step of its own; other lengths repeat the last frame, and decode crops it. Codes look
back in time alone: 1 + n k frames, k of them a step, have the same codes as the beginning of a longer video. Codes
without an extent (a model's output) give all 1 + (t - 1) k frames.

There are 64,000 codes from 0 on (NVIDIA's documentation says from 1): FSQ with levels 8, 8, 8, 5, 5, 5, the first
fastest. Heights and widths that the stride does not divide repeat the edge on the right and below; NVIDIA's scripts put
zeros on all sides, so there such sizes get other codes.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CheckpointError
from multitok.protocol import Json, Modality
from multitok.tokenizers._anchor_network import AnchorNetwork, Shapes
from multitok.tokenizers._published import read_weights

if TYPE_CHECKING:
    import torch

HALVES, WHOLE = ("encoder.jit", "decoder.jit"), "autoencoder.jit"
# What TorchScript stores besides the weights: the wavelets' filters and the tables of FSQ, all fixed.
FIXED = re.compile(r"((encoder|decoder)\.(un)?patcher(3d)?|quantizer|inv_quant)\.(\w+\.)*\w+")
# Of a step between two resolutions; what a network does not use of them, its checkpoint may hold all the same.
RESAMPLING = re.compile(r"(encoder\.down\.\d\.down|decoder\.up\.\d\.up)sample\.conv[123]\.conv3d\.(weight|bias)")
COMPRESSION = re.compile(r"DV(\d+)x(\d+)x(\d+)")
LEVELS_KEY = re.compile(r"(^|\.)_levels$")


class CosmosImage(AnchorNetwork):
    """uint8 [H, W, 3] <-> codes [1, h, w]; the arguments are those of `AnchorNetwork`, no configuration."""

    kind = "cosmos-image"
    modality = Modality.IMAGE
    grid_axes: ClassVar[tuple[str, ...]] = ("h", "w")

    @classmethod
    def read(cls, folder: Path) -> dict[str, torch.Tensor]:
        """The tensors, without the fixed ones that TorchScript stores."""
        found = _read(folder)
        from multitok.nets.anchors.cosmos import LEVELS

        for key, value in found.items():
            if LEVELS_KEY.search(key) and tuple(value.flatten().tolist()) != LEVELS:
                raise CheckpointError(
                    f"{folder}: key {key!r} says FSQ levels {value.flatten().tolist()}, known are {list(LEVELS)}"
                )
        return {key: value for key, value in found.items() if not FIXED.fullmatch(key)}

    @classmethod
    def make_module(cls, shapes: Shapes, options: Mapping[str, Any]) -> Any:
        """The network of these shapes."""
        from multitok.nets.anchors.cosmos import Cosmos, CosmosConfig

        _check_kind(shapes, "cosmos-image")
        return Cosmos(CosmosConfig.of_image(shapes))

    @classmethod
    def codebook_size(cls, shapes: Shapes) -> int:
        """64,000."""
        from multitok.nets.anchors.cosmos import LEVELS

        return math.prod(LEVELS)

    @classmethod
    def stride_of(cls, module: Any) -> tuple[int, ...]:
        """Rows and columns per code."""
        return (module.config.space,) * 2

    @staticmethod
    def pixel_values() -> NDArray[np.float32]:
        """2 v / 255 - 1, in float64 until the end."""
        return (2.0 * (np.arange(256) / 255.0) - 1.0).astype(np.float32)


class CosmosVideo(CosmosImage):
    """uint8 [T, H, W, 3] <-> codes [1, t, h, w].

    The arguments are those of `AnchorNetwork`; the configuration holds "time" and "space", the compression.
    """

    kind = "cosmos-video"
    modality = Modality.VIDEO
    grid_axes: ClassVar[tuple[str, ...]] = ("t", "h", "w")

    @classmethod
    def read_options(cls, folder: Path) -> dict[str, Json]:
        """The compression, from the name of the folder or of the nearest one above that has it."""
        # Caches keep the name some folders above the files.
        for part in reversed(folder.resolve().parts):
            found = COMPRESSION.search(part)
            if found:
                time, height, width = (int(number) for number in found.groups())
                if height != width:
                    raise CheckpointError(f"{folder}: {found[0]} says {height} x {width} pixels a code, not a square")
                return {"time": time, "space": height}
        raise CheckpointError(
            f"{folder}: the tensors of DV4x8x8, DV8x8x8 and DV8x16x16 have the same shapes: rename the folder so that "
            "its name holds the right one, as in 'Cosmos-0.1-Tokenizer-DV8x16x16'"
        )

    @classmethod
    def make_module(cls, shapes: Shapes, options: Mapping[str, Any]) -> Any:
        """The network of these shapes."""
        from multitok.nets.anchors.cosmos import Cosmos, CosmosConfig

        _check_kind(shapes, "cosmos-video")
        config = CosmosConfig.of_video(shapes, time=options["time"], space=options["space"])
        if not config.possible():
            raise CheckpointError(
                f"DV{config.time}x{config.space}x{config.space} cannot be made of patches of {config.patch} and "
                f"{len(config.multipliers)} resolutions: the folder is named wrongly, or the checkpoint is of another "
                "kind"
            )
        return Cosmos(config)

    @classmethod
    def is_spare(cls, key: str) -> bool:
        """Whether it is a convolution that halves or doubles, as a step that does not has it too."""
        return RESAMPLING.fullmatch(key) is not None

    @classmethod
    def stride_of(cls, module: Any) -> tuple[int, ...]:
        """Frames, rows and columns per code; the first frame has a code of its own."""
        return (module.config.time, *super().stride_of(module))

    def grid(self, extent: tuple[int, ...]) -> tuple[int, ...]:
        """1 + (T - 1) / stride steps in time, rounded up; space as usual."""
        return (1 - (1 - extent[0]) // self._spec.stride[0], *super().grid(extent)[1:])

    def padded(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """1 + (t - 1) stride frames."""
        return (1 + (grid[0] - 1) * self._spec.stride[0], *super().padded(grid)[1:])

    def fits(self, grid: tuple[int, ...], extent: tuple[int, ...]) -> bool:
        """Whether codes over this grid may stand for this extent; the nominal one of codes without any does."""
        return super().fits(grid, extent) or extent == self._spec.full_extent(grid)


def _read(folder: Path) -> dict[str, torch.Tensor]:
    if all((folder / name).is_file() for name in HALVES):
        return {key: value for name in HALVES for key, value in _read_torchscript(folder / name).items()}
    if (folder / WHOLE).is_file():
        return _read_torchscript(folder / WHOLE)
    for here, absent in (HALVES, HALVES[::-1]):
        if (folder / here).is_file():
            raise CheckpointError(f"{folder} holds {here} but no {absent}: copy both, or {WHOLE}")
    return read_weights(folder, prefixes=("network.", "module.", ""))


def _read_torchscript(file: Path) -> dict[str, torch.Tensor]:
    import torch

    load: Any = torch.jit.load
    try:
        with warnings.catch_warnings():
            # Newer versions of torch recommend other formats; the files are what they are.
            warnings.simplefilter("ignore", FutureWarning)
            return dict(load(str(file), map_location="cpu").state_dict())
    except (RuntimeError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{file} is not a whole TorchScript file ({reason}): copy it again") from error


def _check_kind(shapes: Shapes, kind: str) -> None:
    """Raise where the tensors are of the other kind, or of a tokenizer without codes."""
    is_video = "quant_conv.conv3d.weight" in shapes
    other = "cosmos-video" if kind == "cosmos-image" else "cosmos-image"
    if is_video != (kind == "cosmos-video") and (is_video or "quant_conv.weight" in shapes):
        raise CheckpointError(f"these tensors are of the other network: give kind={other!r}")
    from multitok.nets.anchors.cosmos import LEVELS

    made = shapes["quant_conv.conv3d.weight" if is_video else "quant_conv.weight"][0]
    if made != len(LEVELS):
        raise CheckpointError(
            f"{made} numbers a position instead of {len(LEVELS)}: a continuous tokenizer (CI, CV) has no codes; take "
            "the discrete one (DI, DV)"
        )
