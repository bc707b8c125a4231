"""Video by a small neural codec in integer arithmetic, causal: see `_nd_vq`, docs/image-video-volume.md.

Grid step t stands for the frames 4 t to 4 t + 3 for patches of 4 frames, and its codes depend on these and earlier
frames only; so a stream, cut anywhere, gets the codes of the whole clip. A clip whose length 4 does not divide repeats
its last frame, one frame alone is a clip, and decoding crops.

    stream = tokenizer.stream()                    for codes in tokenizer.encode_frames(chunks): ...
    codes = stream.push(frames)                    for frames in tokenizer.decode_frames(parts): ...
    codes = stream.flush()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.nets.integer import IntegerAutoencoder
from multitok.protocol import Codes, Modality
from multitok.tokenizers._nd_levels import PixelLevels
from multitok.tokenizers._nd_stream import DecodeStream, EncodeStream
from multitok.tokenizers._nd_vq import NdVq
from multitok.tokenizers._pixels import check_pixels


class VideoVq(NdVq):
    """uint8 [T, H, W, 3] <-> codes [K, t, h, w], each grid size the raw one over the patch, rounded up.

    Args:
        net: The autoencoder: three channels, no neighbours ahead in time.
        num_codebooks: How many codebooks to use, the first ones; None for all.
        name: Name inside a vocabulary; None takes "video".
    """

    kind = "video-vq"
    modality = Modality.VIDEO
    grid_axes = ("t", "h", "w")
    channels = 3
    allowed_taps = ((0,), (-1, 0))

    def __init__(self, net: IntegerAutoencoder, *, num_codebooks: int | None = None, name: str | None = None) -> None:
        super().__init__(net, PixelLevels(), num_codebooks, name)

    def check_raw(self, raw: NDArray[Any]) -> None:
        """Raise unless `raw` is uint8 [T, H, W, 3]."""
        check_pixels(raw, self.grid_axes)

    def to_frames(self, raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frames as they are."""
        return raw

    def raw_shape(self, extent: tuple[int, ...]) -> tuple[int, ...]:
        """(T, H, W, 3)."""
        return (*extent, self.channels)

    def stream(self) -> EncodeStream:
        """Encode a video piece by piece; the pieces' codes joined along t are those of the whole clip."""
        return EncodeStream(self)

    def decode_stream(self, *, num_codebooks: int | None = None) -> DecodeStream:
        """Decode a video piece by piece.

        Args:
            num_codebooks: How many codebooks to decode, the first ones; None takes all.
        """
        return DecodeStream(self, num_codebooks)

    def encode_frames(self, chunks: Iterable[NDArray[np.uint8]]) -> Iterator[Codes]:
        """Encode a video that comes in chunks, in memory that does not grow with its length.

        Args:
            chunks: uint8 [T, H, W, 3], any T, one size; read as codes are asked for.

        Yields:
            Codes of the steps that are complete; the last ones may have an extent that no patch divides.
        """
        stream = self.stream()
        for frames in chunks:
            codes = stream.push(frames)
            if codes.num_tokens:
                yield codes
        codes = stream.flush()
        if codes.num_tokens:
            yield codes

    def decode_frames(self, parts: Iterable[Codes], *, num_codebooks: int | None = None) -> Iterator[NDArray[np.uint8]]:
        """Decode a video whose codes come in parts, in memory that does not grow with its length.

        Args:
            parts: As `encode_frames` yields them.
            num_codebooks: How many codebooks to decode, the first ones; None takes all.

        Yields:
            uint8 [T, H, W, 3], the frames of each part.
        """
        stream = self.decode_stream(num_codebooks=num_codebooks)
        for codes in parts:
            yield stream.push(codes)
