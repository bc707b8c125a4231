"""What the adapters of Emu3, Cosmos and TiTok share: a published network between 8-bit pixels and one code a position.

    uint8 [*axes, 3] -> edges repeated up to what the network takes -> float32 [1, 3, *axes] -> module.encode
    -> codes [1, *grid]                and back, rounded to the nearest value, clipped, cropped to the extent

Sizes come from the shapes of the tensors; a configuration holds only what shapes cannot tell.

What is equal to what: these networks look at whole pictures or frames (norms, attention), so codes depend on height
and width, and codes of tiles are not those of the whole. Each item runs on its own, so a batch equals single calls.
The networks compute in float32 in the order that torch chooses for a machine and a number of threads: elsewhere a
latent may differ in its last bits, and with it, seldom, a code.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
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

Shapes = Mapping[str, tuple[int, ...]]

# Batches seen in training, in every BatchNorm: an integer that running the network does not read.
COUNTER = "num_batches_tracked"


class AnchorNetwork(TokenizerBase[NDArray[np.uint8]]):
    """uint8 [*axes, 3] <-> codes [1, *grid] by a published network.

    Args:
        weights: Tensors by the network's names, exactly those it has.
        config: What shapes cannot tell; the subclass says what.
        name: Name inside a vocabulary; None takes the modality's.
        where: What a message about the weights begins with.

    Raises:
        CheckpointError: The weights are not those of such a network; the message names the first key that differs.
    """

    kind: ClassVar[str]
    modality: ClassVar[Modality]
    grid_axes: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        weights: Mapping[str, torch.Tensor],
        *,
        config: Mapping[str, Any] | None = None,
        name: str | None = None,
        where: str = "tensors",
    ) -> None:
        import torch

        self._options: dict[str, Any] = dict(config or {})
        shapes = {key: tuple(value.shape) for key, value in weights.items()}
        try:
            with torch.device("meta"):  # shapes alone: no memory, no random numbers
                module = self.make_module(shapes, self._options)
        except KeyError as error:
            raise CheckpointError(
                f"{where}: key {error.args[0]!r} is missing: the checkpoint is incomplete or of another kind"
            ) from error
        except (ValueError, IndexError, ArithmeticError, AssertionError, TypeError, RuntimeError) as error:
            if isinstance(error, CheckpointError):
                raise CheckpointError(f"{where}: {error}") from error
            raise CheckpointError(
                f"{where}: no network has tensors of these shapes ({error}): the checkpoint is of another kind"
            ) from error
        expected = module.state_dict()
        floats = {key: tuple(value.shape) for key, value in expected.items() if not key.endswith(COUNTER)}
        given = {key: value for key, value in weights.items() if key in floats or not self.is_spare(key)}
        check_keys(where, given, floats)
        state = {key: weights[key].float().contiguous() for key in floats}
        state |= {key: torch.zeros((), dtype=torch.int64) for key in expected.keys() - floats.keys()}
        module.load_state_dict(state, assign=True)
        self._module = module.eval()
        self._pixels = self.pixel_values()
        self._spec = TokenizerSpec(
            kind=self.kind,
            name=self.modality.value if name is None else name,
            modality=self.modality,
            codebook_sizes=(self.codebook_size(shapes),),
            grid_axes=self.grid_axes,
            stride=self.stride_of(module),
        )

    @classmethod
    def from_directory(cls, folder: Path, /, *, name: str | None) -> Self:
        """Build the tokenizer from the files of a published checkpoint.

        Args:
            folder: Holds the weights.
            name: Name inside a vocabulary; None takes the modality's.

        Raises:
            CheckpointError: There is none, it cannot be read, or its keys are not exactly those of the network.
        """
        weights = cls.read(folder)
        return cls(weights, config=cls.read_options(folder), name=name, where=str(folder))

    @property
    def spec(self) -> TokenizerSpec:
        """What the codes look like."""
        return self._spec

    @property
    def module(self) -> Any:
        """The `nn.Module`: `encode(pixels [B, 3, *axes]) -> codes [B, 1, *grid]`, `decode(codes)`, `forward(pixels)`.

        `forward` is differentiable. `.to(device)` moves the tokenizer too; training changes it.
        """
        return self._module

    def encode(self, raw: NDArray[np.uint8], /) -> Codes:
        """Codes of one picture or video.

        Args:
            raw: uint8 [*axes, 3], RGB.

        Returns:
            Codes [1, *grid].

        Raises:
            ShapeError: `raw` has another rank, dtype or number of channels.
            InputError: An axis is empty.
        """
        import torch

        check_pixels(raw, self.raw_axes())
        extent = raw.shape[:-1]
        if 0 in extent:
            raise InputError(f"{self.modality} of shape {list(raw.shape)}: every axis must be at least 1 long")
        padded = self.padded(self.grid(extent))
        whole = np.pad(raw, [(0, after - n) for n, after in zip(extent, padded, strict=True)] + [(0, 0)], mode="edge")
        pixels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(self._pixels[whole], -1, 0)))
        with torch.inference_mode():
            codes = self.run_encoder(pixels[None].to(self._device()))
        return Codes(codes.to("cpu", torch.int32).numpy(), extent)

    def decode(self, codes: Codes, /) -> NDArray[np.uint8]:
        """The picture or video that `codes` stand for.

        Args:
            codes: [1, *grid] over the grid that belongs to their extent.

        Returns:
            uint8 [*axes, 3], rounded to the nearest value.

        Raises:
            ShapeError: `codes` does not have one codebook over the grid axes, or its grid does not fit its extent.
            CodeRangeError: A code lies outside the codebook.
        """
        import torch

        self._spec.check(codes)
        if 0 in codes.grid or not self.fits(codes.grid, codes.extent):
            raise ShapeError(
                f"codes over a grid {codes.grid} for extent {codes.extent}: {self.kind!r} makes a grid "
                f"{self.grid(codes.extent)} of it"
            )
        crop = (slice(1), slice(None), *(slice(n) for n in codes.extent))
        with torch.inference_mode():
            pixels = self.run_decoder(torch.from_numpy(codes.values.astype(np.int64)).to(self._device()))
            values = self.to_bytes(pixels[crop])[0]
        return np.ascontiguousarray(np.moveaxis(values.to("cpu", torch.uint8).numpy(), 0, -1))

    def num_tokens(self, extent: tuple[int, ...], /) -> int:
        """Exact `encode(raw).num_tokens` for a raw item of this extent."""
        if len(extent) != len(self.grid_axes):
            raise ShapeError(f"extent {extent}: {self.kind!r} counts along the axes {self.grid_axes}")
        return math.prod(self.grid(extent))

    def get_config(self) -> dict[str, Json]:
        """JSON values which, with `get_tensors`, rebuild an equal tokenizer."""
        return {"name": self._spec.name, **self._options}

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """Every weight, float32, by the network's names."""
        state = self._module.state_dict().items()
        return {key: value.numpy(force=True).copy() for key, value in state if not key.endswith(COUNTER)}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], /) -> Self:
        """Rebuild a tokenizer from what `get_config` and `get_tensors` returned.

        Raises:
            CheckpointError: The two do not fit each other.
        """
        import torch

        options = {key: value for key, value in config.items() if key != "name"}
        weights = {key: torch.tensor(value) for key, value in tensors.items()}
        return cls(weights, config=options, name=config["name"])

    @classmethod
    @abstractmethod
    def read(cls, folder: Path) -> dict[str, torch.Tensor]:
        """The tensors of a published checkpoint, by the network's names."""

    @classmethod
    def read_options(cls, folder: Path) -> dict[str, Json]:
        """What shapes cannot tell, from the other files of a published checkpoint or its folder's name."""
        return {}

    @classmethod
    @abstractmethod
    def make_module(cls, shapes: Shapes, options: Mapping[str, Any]) -> Any:
        """The network whose tensors have these shapes; KeyError names a tensor that is missing."""

    @classmethod
    def is_spare(cls, key: str) -> bool:
        """Whether a checkpoint may hold this tensor although the network does not read it."""
        return key.endswith(COUNTER)

    @classmethod
    @abstractmethod
    def codebook_size(cls, shapes: Shapes) -> int:
        """Number of codes."""

    @classmethod
    @abstractmethod
    def stride_of(cls, module: Any) -> tuple[int, ...]:
        """Raw units per grid step of a network."""

    @staticmethod
    @abstractmethod
    def pixel_values() -> NDArray[np.float32]:
        """The network's input [256] for each 8-bit value, computed as the publishers do."""

    @staticmethod
    def to_bytes(pixels: torch.Tensor) -> torch.Tensor:
        """The network's output, here -1 to 1, as whole numbers 0 to 255."""
        return pixels.float().mul(127.5).add(127.5).round().clamp(0, 255)

    def raw_axes(self) -> tuple[str, ...]:
        """Names of the raw array's axes but the last."""
        return self.grid_axes

    def grid(self, extent: tuple[int, ...]) -> tuple[int, ...]:
        """The grid that a raw item of this extent gets."""
        return patch_grid(extent, self._spec.stride)

    def padded(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """The extent that fills a grid."""
        return self._spec.full_extent(grid)

    def fits(self, grid: tuple[int, ...], extent: tuple[int, ...]) -> bool:
        """Whether codes over this grid may stand for this extent."""
        return grid == self.grid(extent)

    def run_encoder(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels [1, 3, *axes] to codes [1, *grid]."""
        codes: torch.Tensor = self._module.encode(pixels)[0]
        return codes

    def run_decoder(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes [1, *grid] to pixels [1, 3, *axes]."""
        pixels: torch.Tensor = self._module.decode(codes[None])
        return pixels

    def _device(self) -> torch.device:
        device: torch.device = next(self._module.parameters()).device
        return device


def steps_of_float32(half: float) -> NDArray[np.float32]:
    """Values 0 to 255 as v / 255, then less `half` and over it unless that is 0, each step in float32.

    Args:
        half: 0.5 for -1 to 1, 0 for 0 to 1.
    """
    values = np.arange(256, dtype=np.float32) / np.float32(255)
    scaled: NDArray[np.float32] = (values - np.float32(half)) / np.float32(half) if half else values
    return scaled
