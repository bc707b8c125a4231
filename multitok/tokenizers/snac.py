"""SNAC: `multitok.load(folder, kind="snac")`, folders with `config.json` and `pytorch_model.bin` or safetensors.

    hubertsiuzdak/snac_24khz    24,000 / 2,048 = 11.72 coarse frames a second    1 + 2 + 4 codes each
    hubertsiuzdak/snac_32khz    32,000 / 3,072 = 10.42                           1 + 2 + 4 + 8
    hubertsiuzdak/snac_44khz    44,100 / 3,072 = 14.36                           1 + 2 + 4 + 8

A level's codes come at a rate of their own, twice that of the level before. Here all levels stand on the coarsest
grid: level i has as many rows of `Codes` as it has codes in a coarse frame, in their order, and no code is repeated.

    level 0   a0      a1          row 0   a0  a1
    level 1   b0  b1  b2  b3      row 1   b0  b2
                                  row 2   b1  b3

So K = 7 or 15, and the first levels are the first rows: 1, 3, 7, 15. `levels(codes)` and `from_levels(arrays, n)` go
to SNAC's own lists and back, exactly. Orpheus writes a frame depth first, which is `values[[0, 1, 3, 4, 2, 5, 6]]`.

The decoder adds noise. SNAC draws it anew at every call; here it is the same each time, so decode has one answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CheckpointError, ShapeError
from multitok.protocol import Codes, Json
from multitok.tokenizers._audio_network import AudioFormat, AudioNetwork

if TYPE_CHECKING:
    import torch


class Snac(AudioNetwork):
    """Mono waveforms <-> codes [K, F] on the coarsest level's grid; the arguments are those of `AudioNetwork`."""

    kind = "snac"

    @classmethod
    def checked_config(cls, data: Mapping[str, Any], where: str) -> dict[str, Json]:
        """SNAC's settings and nothing else."""
        from multitok.nets.anchors.snac import SnacConfig

        known = {field.name for field in fields(SnacConfig)}
        strange = sorted(data.keys() - known)
        if strange or "vq_strides" not in data:
            what = f"has {strange[0]!r}" if strange else "lacks 'vq_strides'"
            raise CheckpointError(f"{where}: config.json {what}, SNAC's settings are {', '.join(sorted(known))}")
        return dict(data)

    @classmethod
    def make_module(cls, config: Mapping[str, Any], where: str) -> Any:
        """The network, with weights that come from nowhere."""
        import torch

        from multitok.nets.anchors.snac import HEAD_WIDTH, SnacConfig
        from multitok.nets.anchors.snac import Snac as Network

        try:
            settings: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}
            made = SnacConfig(**settings)
            strides = made.vq_strides
            if any(strides[0] % stride for stride in strides) or list(strides) != sorted(strides, reverse=True):
                raise CheckpointError(f"vq_strides {list(strides)} are to fall, and to divide the first")
            for width in (made.width, made.decoder_dim) if made.attn_window_size is not None else ():
                if width % HEAD_WIDTH:
                    raise CheckpointError(f"attention of width {width}: give a multiple of {HEAD_WIDTH}")
            with torch.random.fork_rng(devices=[]):
                return Network(made)
        except (CheckpointError, TypeError, ValueError, ArithmeticError, IndexError, RuntimeError) as error:
            raise CheckpointError(f"{where}: config.json describes no SNAC ({error})") from error

    @classmethod
    def format_of(cls, config: Mapping[str, Any], module: Any) -> AudioFormat:
        """A frame is one of the coarsest level."""
        settings = module.config
        rows = sum(settings.vq_strides[0] // stride for stride in settings.vq_strides)
        return AudioFormat(
            settings.sampling_rate, 1, settings.step * settings.vq_strides[0], (settings.codebook_size,) * rows
        )

    @property
    def level_droppable(self) -> bool:
        """Whether any number of first rows decodes: only whole levels do."""
        return len(self.counts()) == self._spec.num_codebooks

    def counts(self) -> list[int]:
        """Rows of the first level, of the first two, and so on."""
        return [rows for rows in accumulate(self._rows_of_levels()) if rows <= self._spec.num_codebooks]

    def num_frames(self, num_samples: int) -> int:
        """F: clips are filled up to a whole window of the attention."""
        return -(-super().num_frames(num_samples) // self._frames_at_once) * self._frames_at_once

    def fits(self, frames: int, num_samples: int) -> bool:
        """Whether so many frames may stand for so many samples; windows of the attention have to be whole."""
        return super().fits(frames, num_samples) and frames % self._frames_at_once == 0

    def levels(self, codes: Codes) -> list[NDArray[np.int32]]:
        """The codes of each level, one after the other in time, as SNAC lists them.

        Args:
            codes: [K, F].

        Raises:
            ShapeError: There are not K rows.
            CodeRangeError: A code lies outside its codebook.
        """
        self._spec.check(codes)
        return [np.ascontiguousarray(part.T).ravel() for part in self._split(codes.values)]

    def from_levels(self, levels: Sequence[NDArray[np.integer[Any]]], num_samples: int | None = None) -> Codes:
        """What `levels` was given: the codes of SNAC's lists.

        Args:
            levels: The codes [F], [2 F], ... of each level.
            num_samples: Samples that they stand for; None for all that their frames cover.

        Raises:
            ShapeError: Another number of levels, or lengths that do not belong to one number of frames.
        """
        rows = [count for count, _ in zip(self._rows_of_levels(), self.counts(), strict=False)]
        frames = len(levels[0]) if levels else 0
        if [len(level) for level in levels] != [count * frames for count in rows]:
            raise ShapeError(
                f"levels of {[len(level) for level in levels]} codes: give {len(rows)} levels, {rows} codes a frame"
            )
        parts = [np.asarray(level).reshape(frames, -1).T for level in levels]
        return Codes(np.concatenate(parts), (frames * self._format.hop_length if num_samples is None else num_samples,))

    def run_encoder(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [1, 1, N] to codes [K, F]."""
        import torch

        config = self._module.config
        whole = torch.nn.functional.pad(samples, (0, -samples.shape[2] % (config.step * config.steps)))
        found = self._module.encode(whole, len(self.counts()))
        frames = whole.shape[2] // self._format.hop_length
        return torch.cat([codes.reshape(frames, -1).T for codes in found])

    def run_decoder(self, codes: torch.Tensor, num_samples: int) -> torch.Tensor:
        """Codes [K, F] to samples [1, M]."""
        samples: torch.Tensor = self._module.decode([part.T.reshape(1, -1) for part in self._split(codes)])[0]
        return samples

    @property
    def _frames_at_once(self) -> int:
        config = self._module.config
        return int(config.steps // config.vq_strides[0])

    def _split(self, values: Any) -> list[Any]:
        """The rows of each level."""
        ends = self.counts()
        return [values[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]

    def _rows_of_levels(self) -> list[int]:
        strides = self._module.config.vq_strides
        return [strides[0] // stride for stride in strides]
