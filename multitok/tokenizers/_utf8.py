"""Text as UTF-8 bytes and back, said once for all text tokenizers: what is refused, and where it stands."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from multitok.errors import InputError, ShapeError

DecodingErrors: TypeAlias = Literal["strict", "replace"]


def text_to_utf8(text: str) -> bytes:
    """The UTF-8 bytes of `text`.

    Raises:
        InputError: `text` is no str, or holds a lone surrogate, which has no UTF-8 form.
    """
    if not isinstance(text, str):
        raise InputError(f"text of type {type(text).__name__}: give a str; decode bytes as UTF-8 first")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"lone surrogate U+{ord(text[error.start]):04X} at character {error.start}: it has no UTF-8 form; "
            "read the text with the right encoding, or replace it first"
        ) from None


def utf8_to_text(data: bytes, errors: DecodingErrors = "strict") -> str:
    """The text of UTF-8 bytes, whatever produced them.

    Args:
        data: Bytes; a model may have produced any.
        errors: "strict" refuses what is not UTF-8; "replace" puts U+FFFD in its place.
    Raises:
        InputError: The bytes are not UTF-8 and `errors` is "strict"; names the first bad byte's offset.
    """
    try:
        return data.decode("utf-8", _checked(errors))
    except UnicodeDecodeError as error:
        raise _not_utf8(data[error.start], error.start) from None


class TextStream:
    """Text from codes that arrive piece by piece: a character is given out once its last byte is there.

    The pieces joined equal `decode` of all codes at once, for both ways of handling errors.

    Args:
        to_bytes: Bytes of an int64 array [n] of codes.
        errors: As for `utf8_to_text`.
    """

    def __init__(self, to_bytes: Callable[[NDArray[np.int64]], bytes], errors: DecodingErrors = "strict") -> None:
        self._to_bytes = to_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(_checked(errors))
        self._num_bytes = 0

    def push(self, codes: ArrayLike) -> str:
        """The text that these further codes complete; often empty in the middle of a character.

        Args:
            codes: One code, or [n] codes.
        Raises:
            CodeRangeError: A code lies outside the codebook.
            InputError: The bytes so far are not UTF-8 and `errors` is "strict".
        """
        values = np.atleast_1d(np.asarray(codes))
        if values.ndim != 1 or (values.size and not np.issubdtype(values.dtype, np.integer)):
            raise ShapeError(f"codes of shape {list(values.shape)} and dtype {values.dtype}: push integers [n]")
        return self._feed(self._to_bytes(values.astype(np.int64)), final=False)

    def finish(self) -> str:
        """What is left at the end: empty, or U+FFFD for a character cut short where `errors` is "replace".

        Raises:
            InputError: A character is cut short and `errors` is "strict".
        """
        return self._feed(b"", final=True)

    def _feed(self, data: bytes, final: bool) -> str:
        pending = self._decoder.getstate()[0]
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            seen = pending + data
            raise _not_utf8(seen[error.start], self._num_bytes - len(pending) + error.start) from None
        self._num_bytes += len(data)
        return text


def _checked(errors: str) -> str:
    if errors not in ("strict", "replace"):
        raise InputError(f'errors={errors!r}: give "strict" or "replace"')
    return errors


def _not_utf8(byte: int, offset: int) -> InputError:
    return InputError(
        f"byte 0x{byte:02X} at offset {offset} is not UTF-8: the codes end inside a character or were not made "
        'from text; decode with errors="replace" to see what is there'
    )
