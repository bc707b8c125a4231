"""What the adapters of published audio codecs share: a network between sound and K codes a frame.

    Waveform -> the network's channels and rate [C, N] -> network -> codes [K, F], extent (N,)
    codes [K, F] -> network -> samples [C, M] -> exactly N of them

What is equal to what: these networks look at both sides of a sample, or at all of a clip, and compute in float32 in
the order that torch chooses. So a clip is encoded whole and alone: a batch is a loop and equals single calls bit for
bit, nothing is padded to the length of another clip, and codes of pieces are not those of the whole. Elsewhere (another
machine, version of torch or number of threads) a latent may differ in its last bits, and with it, seldom, a code.

Shape letters: C channels, N samples at the network's rate, F frames, K codebooks.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, ShapeError, SpecError
from multitok.frontend.channels import to_channels
from multitok.protocol import Codes, Json, Modality, TokenizerBase, TokenizerSpec, Waveform
from multitok.tokenizers._published import check_keys, read_config, read_weights

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


@dataclass(frozen=True)
class AudioFormat:
    """What a network's configuration says of its sound and its codes.

    Args:
        sample_rate_hz: Of the network.
        channels: C.
        hop_length: Samples per frame.
        codebook_sizes: Of every codebook that the network has.
    """

    sample_rate_hz: int
    channels: int
    hop_length: int
    codebook_sizes: tuple[int, ...]


class AudioNetwork(TokenizerBase[Waveform]):
    """Sound <-> codes [K, F] by a published network.

    Args:
        weights: Tensors by their published names, exactly those of the network.
        config: The published configuration.
        num_codebooks: How many codebooks to use, from the first on; None for all.
        name: Name inside a vocabulary; None takes "audio".
        where: What a message about the weights begins with.

    Raises:
        CheckpointError: The configuration cannot be, or the weights are not those of its network; the message names
            the first key that differs.
        MissingExtraError: The network needs a package that is not installed, or a newer one.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        weights: Mapping[str, torch.Tensor],
        *,
        config: Mapping[str, Any],
        num_codebooks: int | None = None,
        name: str | None = None,
        where: str = "tensors",
    ) -> None:
        self._published = dict(config)
        module = self.make_module(self._published, where)
        self._names = {key: self.published_key(key) for key in module.state_dict()}
        _load(module, self._names, {self.published_key(key): value for key, value in weights.items()}, self, where)
        self._module = module.eval()
        self._format = self.format_of(self._published, module)
        self._spec = TokenizerSpec(
            kind=self.kind,
            name="audio" if name is None else name,
            modality=Modality.AUDIO,
            codebook_sizes=self._format.codebook_sizes,
            grid_axes=("t",),
            stride=(self._format.hop_length,),
            sample_rate_hz=self._format.sample_rate_hz,
        )
        if num_codebooks is not None:
            self._spec = self.first_codebooks(num_codebooks).spec

    @classmethod
    def from_directory(cls, folder: Path, /, *, name: str | None) -> Self:
        """Build the tokenizer from the files of a published checkpoint.

        Args:
            folder: Holds `config.json` and the weights.
            name: Name inside a vocabulary; None takes "audio".

        Raises:
            CheckpointError: A file is missing or cannot be read, or the keys are not exactly those of the network.
        """
        config = cls.checked_config(read_config(folder), where=str(folder))
        return cls(read_weights(folder), config=config, name=name, where=str(folder))

    @property
    def spec(self) -> TokenizerSpec:
        """K codebooks over ("t",)."""
        return self._spec

    @property
    def module(self) -> Any:
        """The published `nn.Module`, with all its codebooks. `.to(device)` moves the tokenizer; training changes it."""
        return self._module

    @property
    def channels(self) -> int:
        """C: channels that the network takes and that decode returns."""
        return self._format.channels

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second, exactly."""
        return Fraction(self._format.sample_rate_hz, self._format.hop_length)

    @property
    def max_samples(self) -> int | None:
        """The longest clip; None where only memory limits it."""
        return None

    @property
    def bitrate_bps(self) -> float:
        """Nominal bits per second."""
        return self._spec.bits_per_position * float(self.frame_rate)

    @property
    def level_droppable(self) -> bool:
        """Whether any number of first codebooks decodes."""
        return True

    def first_codebooks(self, count: int) -> Self:
        """The tokenizer of the first codebooks: its codes are the first rows of this one's. The network is shared.

        Args:
            count: From 1 to the number of codebooks of this tokenizer.

        Raises:
            SpecError: There are not that many.
        """
        allowed = self.counts()
        if count not in allowed:
            given = ", ".join(map(str, allowed)) if len(allowed) < 5 else f"{allowed[0]} to {allowed[-1]}"
            raise SpecError(f"first_codebooks({count}): {self.kind!r} has {given} here")
        made = copy.copy(self)
        made._spec = replace(self._spec, codebook_sizes=self._spec.codebook_sizes[:count])
        return made

    def at_bitrate(self, bitrate_bps: float) -> Self:
        """The tokenizer of as many first codebooks as fit in a bitrate.

        Args:
            bitrate_bps: Bits per second, 6_000 for what EnCodec calls a bandwidth of 6.0.

        Raises:
            SpecError: Not even the first fits.
        """
        frames_hz = self._format.sample_rate_hz / self._format.hop_length
        fitting = [count for count in self.counts() if self.bits_of(count) * frames_hz <= bitrate_bps]
        if not fitting:
            least = self.bits_of(self.counts()[0]) * frames_hz
            raise SpecError(f"at_bitrate({bitrate_bps}): {self.kind!r} needs {least:.0f} bits per second or more")
        return self.first_codebooks(fitting[-1])

    def encode(self, raw: Waveform, /) -> Codes:
        """Codes of one clip.

        Args:
            raw: Any rate; channels are averaged for a network of one, and one is given to all of a network of several.

        Returns:
            Codes [K, F] with extent (N,).

        Raises:
            InputError: A number of channels that the network does not take, no sample, a sample that is not finite,
                samples far beyond full scale, or a clip that is too long.
        """
        import torch

        samples = to_channels(raw, self._format.sample_rate_hz, self._format.channels)
        num_samples = samples.shape[1]
        if self.max_samples is not None and num_samples > self.max_samples:
            raise InputError(
                f"{num_samples:,} samples: {self.kind!r} counts them in float32, so {self.max_samples:,} "
                f"({self.max_samples / self._format.sample_rate_hz:.0f} s) are the most; cut the clip into pieces"
            )
        with torch.inference_mode():
            codes = self.run_encoder(torch.from_numpy(np.ascontiguousarray(samples))[None].to(self._device()))
        return Codes(codes.to("cpu", torch.int32).numpy(), (num_samples,))

    def decode(self, codes: Codes, /, *, num_codebooks: int | None = None) -> Waveform:
        """The sound that `codes` stand for.

        Args:
            codes: [K, F] over the grid that belongs to their extent.
            num_codebooks: Look at the first codebooks only; None for all.

        Returns:
            C channels of exactly N samples at the network's rate.

        Raises:
            ShapeError: `codes` does not have K codebooks over one axis, or its grid does not fit its extent.
            CodeRangeError: A code lies outside its codebook.
            SpecError: There are not that many codebooks.
        """
        import torch

        self._spec.check(codes)
        if num_codebooks is not None:
            return self.first_codebooks(num_codebooks).decode(Codes(codes.values[:num_codebooks], codes.extent))
        frames, num_samples = codes.grid[0], codes.extent[0]
        if frames == 0 or not self.fits(frames, num_samples):
            raise ShapeError(
                f"codes of {frames} frames for {num_samples} samples: {self.kind!r} makes "
                f"{self.num_frames(num_samples)} of them"
            )
        with torch.inference_mode():
            found = self.run_decoder(torch.from_numpy(codes.values.astype(np.int64)).to(self._device()), num_samples)
            made = found.float().numpy(force=True)
        samples = np.zeros((self._format.channels, num_samples), np.float32)
        samples[:, : made.shape[1]] = made[:, :num_samples]
        return Waveform(samples, self._format.sample_rate_hz)

    def num_tokens(self, extent: tuple[int, ...], /) -> int:
        """Exact `encode(raw).num_tokens` for a raw item of this extent."""
        if len(extent) != 1:
            raise ShapeError(f"extent {extent}: {self.kind!r} counts along the axes ('t',)")
        return self._spec.num_codebooks * self.num_frames(extent[0])

    def get_config(self) -> dict[str, Json]:
        """JSON values which, with `get_tensors`, rebuild an equal tokenizer."""
        return {
            "name": self._spec.name,
            "num_codebooks": self._spec.num_codebooks,
            "published": copy.deepcopy(self._published),
        }

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """Every weight, float32, by its published name."""
        return {
            self._names[key]: value.numpy(force=True).copy()
            for key, value in self._module.state_dict().items()
            if value.is_floating_point()
        }

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], /) -> Self:
        """Rebuild a tokenizer from what `get_config` and `get_tensors` returned.

        Raises:
            CheckpointError: The two do not fit each other.
        """
        import torch

        return cls(
            {key: torch.tensor(value) for key, value in tensors.items()},
            config=config["published"],
            num_codebooks=config["num_codebooks"],
            name=config["name"],
        )

    @classmethod
    @abstractmethod
    def checked_config(cls, data: Mapping[str, Any], where: str) -> dict[str, Json]:
        """What of a published config.json makes the network."""

    @classmethod
    @abstractmethod
    def make_module(cls, config: Mapping[str, Any], where: str) -> Any:
        """The network of a configuration, its weights not yet those of the checkpoint."""

    @classmethod
    @abstractmethod
    def format_of(cls, config: Mapping[str, Any], module: Any) -> AudioFormat:
        """What the network takes and gives."""

    @classmethod
    def published_key(cls, key: str) -> str:
        """The one published name of a tensor that layouts and versions name differently."""
        return key

    @classmethod
    def is_spare(cls, key: str) -> bool:
        """Whether a tensor counts something in training, so that a checkpoint may lack it."""
        return False

    @abstractmethod
    def run_encoder(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [1, C, N] to codes [K, F]."""

    @abstractmethod
    def run_decoder(self, codes: torch.Tensor, num_samples: int) -> torch.Tensor:
        """Codes [K, F] to samples [C, M], about as many as asked for."""

    def num_frames(self, num_samples: int) -> int:
        """F."""
        return -(-num_samples // self._format.hop_length)

    def fits(self, frames: int, num_samples: int) -> bool:
        """Whether so many frames may stand for so many samples; the nominal number, of a model's output, does."""
        return frames == self.num_frames(num_samples) or num_samples == frames * self._format.hop_length

    def counts(self) -> list[int]:
        """Numbers of first codebooks that there can be."""
        return list(range(1, self._spec.num_codebooks + 1))

    def bits_of(self, count: int) -> float:
        """Bits a frame of the first codebooks."""
        return sum(map(math.log2, self._spec.codebook_sizes[:count]))

    def _device(self) -> torch.device:
        device: torch.device = next(self._module.parameters()).device
        return device


def _load(
    module: Any, names: Mapping[str, str], weights: Mapping[str, torch.Tensor], rules: AudioNetwork, where: str
) -> None:
    """Put the weights into the network, after comparing keys and shapes."""
    own = module.state_dict()
    floats = {key: value for key, value in own.items() if value.is_floating_point()}
    given = {key: value for key, value in weights.items() if value.is_floating_point() or key not in names.values()}
    expected = {
        names[key]: tuple(value.shape)
        for key, value in floats.items()
        if names[key] in given or not rules.is_spare(names[key])
    }
    check_keys(where, given, expected)
    module.load_state_dict(own | {key: given[names[key]].float() for key in floats if names[key] in given})
