"""Video in pieces: codes and frames equal those of the whole clip, memory does not grow with its length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, ShapeError
from multitok.frontend.patches import patch_grid
from multitok.protocol import Codes
from multitok.tokenizers._nd_codec import Pass

if TYPE_CHECKING:
    from multitok.tokenizers.video_vq import VideoVq

# Grid steps of a stream's end that nobody knows yet: more than any tile has.
ENDLESS = 2**31


class EncodeStream:
    """Frames in, codes of complete grid steps out; `flush` gives the rest. For one clip and one thread.

    Args:
        tokenizer: What encodes.
    """

    def __init__(self, tokenizer: VideoVq) -> None:
        self._tokenizer = tokenizer
        self._codec = tokenizer.codec()
        self._patch = tokenizer.net.config.patch
        self._pending: NDArray[np.uint8] | None = None
        self._way: Pass | None = None
        self._closed = False

    def push(self, frames: NDArray[np.uint8], /) -> Codes:
        """Take the next frames.

        Args:
            frames: uint8 [T, H, W, 3], any T; H and W as before.

        Returns:
            Codes [K, t, h, w] of the grid steps that are complete now; t may be 0.

        Raises:
            ShapeError: Another rank, dtype or number of channels, or another size than before.
            InputError: An axis of a frame is empty, or the stream has been flushed.
        """
        self._tokenizer.check_raw(frames)
        if self._closed:
            raise InputError("this stream was flushed: a clip ends there, begin another one with stream()")
        if self._pending is None or self._way is None:
            if 0 in frames.shape[1:]:
                raise InputError(f"frames of shape {list(frames.shape)}: height and width must be at least 1")
            h, w = patch_grid(frames.shape[1:3], self._patch[1:])
            self._way = self._codec.encode_pass((ENDLESS, h, w))
            self._pending = np.empty((0, *frames.shape[1:]), np.uint8)
        if frames.shape[1:] != self._pending.shape[1:]:
            raise ShapeError(
                f"frames of {frames.shape[1]} x {frames.shape[2]} pixels after some of {self._pending.shape[1]} x "
                f"{self._pending.shape[2]}: a clip has one size; begin another stream"
            )
        if len(self._pending):
            frames = np.concatenate([self._pending, frames])
        complete = len(frames) - len(frames) % self._patch[0]
        self._pending = frames[complete:].copy()
        return self._encoded(frames[:complete], self._way)

    def flush(self) -> Codes:
        """Codes of what is left, its last frame repeated up to a whole patch; ends the stream.

        Returns:
            Codes [K, t, h, w], t = 0 or 1, whose extent counts the frames that came.

        Raises:
            InputError: No frame was pushed, so there is no clip, or the stream has been flushed.
        """
        if self._closed or self._pending is None or self._way is None:
            raise InputError("nothing to flush: push frames of a clip first, and flush once")
        self._closed = True
        return self._encoded(self._pending, self._way)

    def _encoded(self, frames: NDArray[np.uint8], way: Pass) -> Codes:
        extent = frames.shape[:3]
        codes = np.empty((self._codec.num_codebooks, *patch_grid(extent, self._patch)), np.int32)
        if len(frames):
            self._codec.encode(frames, codes, way)
        return Codes(codes, extent)


class DecodeStream:
    """Codes in, their frames out. For one clip and one thread.

    Args:
        tokenizer: What decodes.
        num_codebooks: How many codebooks to decode, the first ones; None takes all.
    """

    def __init__(self, tokenizer: VideoVq, num_codebooks: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._codec = tokenizer.codec(num_codebooks)
        self._patch = tokenizer.net.config.patch
        self._plane: tuple[int, ...] | None = None
        self._way: Pass | None = None
        self._ended = False

    def push(self, codes: Codes, /) -> NDArray[np.uint8]:
        """Take the next codes.

        Args:
            codes: [K, t, h, w], any t; all parts but the last cover whole patches of frames.

        Returns:
            uint8 [T, H, W, 3], T from the extent of the codes.

        Raises:
            ShapeError: Not the codebooks, the grid or the size of this clip, or the clip has ended.
            CodeRangeError: A code lies outside its codebook.
        """
        self._tokenizer.check_codes(codes, self._codec.num_codebooks, part=True)
        if self._ended and codes.extent[0]:
            raise ShapeError("codes after a part that ended in the middle of a patch: a clip ends there")
        plane = codes.extent[1:]
        if self._way is None:
            self._plane = plane
            self._way = self._codec.decode_pass((ENDLESS, *codes.grid[1:]))  # type: ignore[arg-type]
        if plane != self._plane:
            raise ShapeError(f"codes of {plane} pixels after some of {self._plane}: a clip has one size")
        self._ended = self._ended or codes.extent[0] % self._patch[0] != 0
        frames = np.empty(self._tokenizer.raw_shape(codes.extent), np.uint8)
        if len(frames):
            self._codec.decode(codes.values, frames, self._way)
        return frames
