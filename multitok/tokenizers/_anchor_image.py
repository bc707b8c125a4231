"""What the adapters of published image tokenizers share: pixels to a network's input, its output to pixels, state.

    uint8 [H, W, 3] -> edge repeated up to multiples of the stride -> float32 [1, 3, H', W'], about [-1, 1]
    -> module.encode -> codes [1, h, w]          and back, rounded, clipped, cropped to the extent

What is equal to what: these networks look at the whole picture (GroupNorm, attention), so codes depend on the size of
the picture, and codes of tiles are not those of the whole. Each picture runs on its own, so a batch equals single
calls. The networks compute in float32, in the order that torch chooses for machine and thread count: elsewhere a latent
may differ in its last bits, and with it, seldom, a code.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CheckpointError, InputError, ShapeError
from multitok.frontend.patches import patch_grid
from multitok.protocol import Codes, Json, Modality, TokenizerBase, TokenizerSpec
from multitok.tokenizers._pixels import check_pixels
from multitok.tokenizers._published import check_keys

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

# Far above every published network; a limit for numbers read from a file.
MAX_CHANNELS, MAX_BLOCKS = 2**16, 64
# `nets.anchors.blocks.NORM_GROUPS`; importing that would import torch.
NORM_GROUPS = 32


class AnchorImage(TokenizerBase[NDArray[np.uint8]]):
    """uint8 [H, W, 3] <-> codes [1, h, w] by a published network; h = ceil(H / stride).

    Args:
        name: Unique inside a vocabulary.
        config: The network's sizes, what `make_module` takes.
        weights: Tensors by the names that `their_key` gives, exactly those of the network.
        where: What a message about the weights begins with.
        their_key: The checkpoint's name of a parameter, by the network's.

    Raises:
        CheckpointError: The sizes cannot be, or the weights do not fit them.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        name: str,
        config: Mapping[str, Any],
        weights: Mapping[str, torch.Tensor],
        *,
        where: str = "tensors",
        their_key: Callable[[str], str] = str,
    ) -> None:
        import torch

        try:
            with torch.device("meta"):  # shapes alone: no memory, no random numbers
                module = self.make_module(config)
        except CheckpointError as error:
            raise CheckpointError(f"{where}: {error}") from None
        theirs = {key: their_key(key) for key in module.state_dict()}
        check_keys(where, weights, {theirs[key]: value.shape for key, value in module.state_dict().items()})
        state = {key: weights[theirs[key]].float().contiguous() for key in theirs}
        module.load_state_dict(state, assign=True)
        self._module = module.eval()
        self._config = dict(config)
        self._pixels = self.pixel_values()
        stride = 2 ** (len(config["level_channels"]) - 1)
        self._spec = TokenizerSpec(
            kind=self.kind,
            name=name,
            modality=Modality.IMAGE,
            codebook_sizes=(self.codebook_size(config),),
            grid_axes=("h", "w"),
            stride=(stride, stride),
        )

    @property
    def spec(self) -> TokenizerSpec:
        """What the codes look like."""
        return self._spec

    @property
    def module(self) -> Any:
        """The `nn.Module`: `encode(pixels [B, 3, H, W]) -> codes [B, 1, h, w]`, `decode(codes)`, `forward(pixels)`.

        Pixels are about [-1, 1], H and W multiples of the stride; `forward` is differentiable. `.to(device)` moves the
        tokenizer too; training changes it.
        """
        return self._module

    def encode(self, raw: NDArray[np.uint8], /) -> Codes:
        """Codes of one picture.

        Args:
            raw: uint8 [H, W, 3], RGB.

        Returns:
            Codes [1, h, w].

        Raises:
            ShapeError: `raw` has another rank, dtype or number of channels.
            InputError: An axis is empty.
        """
        import torch

        check_pixels(raw, self._spec.grid_axes)
        height, width = raw.shape[:2]
        if 0 in (height, width):
            raise InputError(f"image of shape {list(raw.shape)}: every axis must be at least 1 long")
        grid = patch_grid((height, width), self._spec.stride)
        step = self._spec.stride[0]
        padded = np.pad(raw, ((0, grid[0] * step - height), (0, grid[1] * step - width), (0, 0)), mode="edge")
        pixels = torch.from_numpy(np.ascontiguousarray(self._pixels[padded].transpose(2, 0, 1)))
        with torch.inference_mode():
            codes = self._module.encode(pixels[None].to(self._device()))
        return Codes(codes[0].to("cpu", torch.int32).numpy(), (height, width))

    def decode(self, codes: Codes, /) -> NDArray[np.uint8]:
        """The picture that `codes` stand for.

        Args:
            codes: [1, h, w] over the grid that belongs to their extent.

        Returns:
            uint8 [H, W, 3], rounded to the nearest value.

        Raises:
            ShapeError: `codes` does not have one codebook over (h, w), or its grid does not fit its extent.
            CodeRangeError: A code lies outside the codebook.
            CheckpointError: The checkpoint has no decoder.
        """
        import torch

        self._spec.check(codes)
        if codes.grid != patch_grid(codes.extent, self._spec.stride):
            raise ShapeError(
                f"codes over a grid {codes.grid} for extent {codes.extent}: a stride of {self._spec.stride} makes a "
                f"grid {patch_grid(codes.extent, self._spec.stride)} of it"
            )
        height, width = codes.extent
        with torch.inference_mode():
            given = torch.from_numpy(codes.values.astype(np.int64))[None].to(self._device())
            pixels = self._module.decode(given)[0, :, :height, :width]
            values = pixels.mul(127.5).add(127.5).round().clamp(0, 255).to("cpu", torch.uint8)
        return np.ascontiguousarray(values.permute(1, 2, 0).numpy())

    def get_config(self) -> dict[str, Json]:
        """JSON values which, with `get_tensors`, rebuild an equal tokenizer."""
        return {"name": self._spec.name, **self._config}

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """Every weight, float32, by the network's names."""
        return {key: value.numpy(force=True).copy() for key, value in self._module.state_dict().items()}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], /) -> Self:
        """Rebuild a tokenizer from what `get_config` and `get_tensors` returned.

        Raises:
            CheckpointError: The two do not fit each other.
        """
        import torch

        sizes = {key: value for key, value in config.items() if key != "name"}
        return cls(config["name"], sizes, {key: torch.tensor(value) for key, value in tensors.items()})

    @classmethod
    @abstractmethod
    def make_module(cls, config: Mapping[str, Any]) -> Any:
        """The network of these sizes, with any weights; raises `CheckpointError` where they cannot be."""

    @classmethod
    @abstractmethod
    def codebook_size(cls, config: Mapping[str, Any]) -> int:
        """Number of codes."""

    @staticmethod
    @abstractmethod
    def pixel_values() -> NDArray[np.float32]:
        """The network's input [256] for each 8-bit value, computed as the publishers do."""

    def _device(self) -> torch.device:
        device: torch.device = next(self._module.parameters()).device
        return device


def signed_pixels() -> NDArray[np.float32]:
    """Values 0 to 255 as v / 127.5 - 1, in float64 until the end, as taming-transformers has it."""
    return (np.arange(256) / 127.5 - 1).astype(np.float32)


def conv_shape(config: Mapping[str, Any]) -> Any:
    """The `ConvShape` in a configuration.

    Args:
        config: Holds its fields, lists for tuples; other keys are left alone.

    Raises:
        CheckpointError: A size cannot be.
    """
    from multitok.nets.anchors.vqgan import ConvShape

    shape = ConvShape(
        channels=config["channels"],
        level_channels=tuple(config["level_channels"]),
        num_res_blocks=config["num_res_blocks"],
        attention_levels=tuple(config["attention_levels"]),
        latent_channels=config["latent_channels"],
    )
    widths = (shape.channels, *shape.level_channels)
    if not shape.level_channels or any(n % NORM_GROUPS or not 0 < n <= MAX_CHANNELS for n in widths):
        raise CheckpointError(
            f"channels {widths}: each is a multiple of {NORM_GROUPS}, up to {MAX_CHANNELS}; "
            "the checkpoint is of another kind"
        )
    if not 1 <= shape.num_res_blocks <= MAX_BLOCKS or not 1 <= shape.latent_channels <= MAX_CHANNELS:
        raise CheckpointError(
            f"{shape.num_res_blocks} blocks a level, {shape.latent_channels} latent channels: "
            f"1 to {MAX_BLOCKS} and 1 to {MAX_CHANNELS} can be"
        )
    return shape


def infer_shape(
    where: str, weights: Mapping[str, torch.Tensor], their_key: Callable[[str, int], str]
) -> dict[str, Json]:
    """The fields of a `ConvShape`, from an encoder's tensors.

    Args:
        where: What a message begins with.
        weights: By the checkpoint's names.
        their_key: The checkpoint's name of a parameter, by the network's and the number of levels.

    Returns:
        JSON values.

    Raises:
        CheckpointError: A tensor that fixes a size is missing or of another rank; the message names it.
    """

    def has(key: str) -> bool:
        # Names inside the encoder do not depend on the number of levels.
        return their_key(key, 1) in weights

    def channels(key: str) -> int:
        found = out_channels(where, weights, their_key(key, 1))
        if found % NORM_GROUPS:
            raise CheckpointError(
                f"{where}: key {their_key(key, 1)!r} has {found} channels, not a multiple of {NORM_GROUPS}: "
                "the checkpoint is of another kind"
            )
        return found

    first = channels("encoder.conv_in.weight")
    levels = [channels("encoder.down.0.block.0.conv1.weight")]
    while has(f"encoder.down.{len(levels)}.block.0.conv1.weight"):
        levels.append(channels(f"encoder.down.{len(levels)}.block.0.conv1.weight"))
    blocks = 1
    while has(f"encoder.down.0.block.{blocks}.conv1.weight"):
        blocks += 1
    return {
        "channels": first,
        "level_channels": list[Json](levels),
        "num_res_blocks": blocks,
        "attention_levels": [i for i in range(len(levels)) if has(f"encoder.down.{i}.attn.0.q.weight")],
        "latent_channels": out_channels(where, weights, their_key("encoder.conv_out.weight", 1)),
    }


def out_channels(where: str, weights: Mapping[str, torch.Tensor], key: str, *, rank: int = 4) -> int:
    """Size of a weight's first axis.

    Args:
        where: What a message begins with.
        weights: By the checkpoint's names.
        key: The weight.
        rank: How many axes it has to have.

    Raises:
        CheckpointError: It is missing or of another rank.
    """
    if key not in weights:
        raise CheckpointError(f"{where}: key {key!r} is missing: the checkpoint is incomplete or of another kind")
    shape = list(weights[key].shape)
    if len(shape) != rank:
        raise CheckpointError(f"{where}: key {key!r} has shape {shape}, expected are {rank} axes")
    return int(shape[0])
