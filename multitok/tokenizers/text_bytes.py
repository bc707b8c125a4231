"""Text as its UTF-8 bytes: no vocabulary to learn, four codes at most for any character, nothing unknown.

    "é!"  ->  values [[195, 169, 33]], extent (3,)

Code b is byte b. One grid step is one byte; the extent counts bytes. Costs a copy of the text.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CodeRangeError
from multitok.protocol import Codes, Json, Modality, TokenizerBase, TokenizerSpec
from multitok.tokenizers._utf8 import DecodingErrors, TextStream, text_to_utf8, utf8_to_text


class TextBytes(TokenizerBase[str]):
    """Text <-> UTF-8 bytes, one code a byte; lossless.

    Args:
        name: Name inside a vocabulary.
    """

    def __init__(self, *, name: str = "bytes") -> None:
        self._spec = TokenizerSpec(
            kind="text-bytes",
            name=name,
            modality=Modality.TEXT,
            codebook_sizes=(256,),
            grid_axes=("t",),
            stride=(1,),
            lossless=True,
        )

    @property
    def spec(self) -> TokenizerSpec:
        """What the codes look like."""
        return self._spec

    def encode(self, raw: str, /) -> Codes:
        """Codes [1, n] of a text of n UTF-8 bytes.

        Raises:
            InputError: No str, or a lone surrogate in it.
        """
        values = np.frombuffer(text_to_utf8(raw), np.uint8).astype(np.int32)[None]
        return Codes(values, (values.shape[1],))

    def decode(self, codes: Codes, /, *, errors: DecodingErrors = "strict") -> str:
        """The text of `codes`, all of them: text has no padding to crop, so the extent plays no part.

        Args:
            codes: [1, n].
            errors: What to do with bytes that are not UTF-8, as a model may produce: "strict" refuses, "replace"
                puts U+FFFD in their place.
        Raises:
            InputError: The bytes are not UTF-8 and `errors` is "strict"; names the first bad byte's offset.
        """
        return utf8_to_text(self.decode_bytes(codes), errors)

    def decode_bytes(self, codes: Codes, /) -> bytes:
        """The bytes of `codes`, UTF-8 or not."""
        self._spec.check(codes)
        return bytes(codes.values[0].astype(np.uint8))

    def stream_decoder(self, *, errors: DecodingErrors = "strict") -> TextStream:
        """A decoder for codes that arrive piece by piece."""
        return TextStream(_bytes_of, errors)

    def get_config(self) -> dict[str, Json]:
        """JSON values which rebuild an equal tokenizer."""
        return {"name": self._spec.name}


def _bytes_of(codes: NDArray[np.int64]) -> bytes:
    if codes.size and (codes.min() < 0 or codes.max() > 255):
        raise CodeRangeError(f"codes from {codes.min()} to {codes.max()}: bytes are 0 to 255")
    return codes.astype(np.uint8).tobytes()
