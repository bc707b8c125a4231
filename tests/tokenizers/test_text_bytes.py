"""Bytes of text, and what both text tokenizers share: refusals by position, and decoding piece by piece."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitok.errors import CodeRangeError, InputError, ShapeError
from multitok.protocol import Codes
from multitok.tokenizers.text_bytes import TextBytes

TOKENIZER = TextBytes()


def codes_of(data: bytes) -> Codes:
    return Codes(np.frombuffer(data, np.uint8).astype(np.int32)[None], (len(data),))


@given(st.text())
def test_codes_are_the_utf8_bytes(text: str) -> None:
    codes = TOKENIZER.encode(text)
    assert codes == codes_of(text.encode())
    assert TOKENIZER.num_tokens(codes.extent) == codes.num_tokens
    assert TOKENIZER.decode(codes) == text


@given(st.binary())
def test_any_bytes_decode_where_errors_are_replaced(data: bytes) -> None:
    assert TOKENIZER.decode(codes_of(data), errors="replace") == data.decode("utf-8", "replace")
    assert TOKENIZER.decode_bytes(codes_of(data)) == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"ab\xff", "byte 0xFF at offset 2 is not UTF-8"),
        ("né".encode()[:2], "byte 0xC3 at offset 1"),
        (b"\xed\xa0\x80", "byte 0xED at offset 0"),  # an encoded surrogate
        (b"\xc0\x80", "byte 0xC0 at offset 0"),  # an overlong NUL
    ],
)
def test_bytes_that_are_not_utf8_are_refused_by_offset(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TOKENIZER.decode(codes_of(data))


def test_a_lone_surrogate_is_refused_by_position() -> None:
    with pytest.raises(InputError, match=r"lone surrogate U\+D83D at character 2"):
        TOKENIZER.encode("ab\ud83d")


def test_bytes_and_unknown_error_handling_are_refused() -> None:
    with pytest.raises(InputError, match="type bytes: give a str"):
        TOKENIZER.encode(b"ab")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="errors='ignore'"):
        TOKENIZER.decode(codes_of(b"ab"), errors="ignore")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="errors='ignore'"):
        TOKENIZER.stream_decoder(errors="ignore")  # type: ignore[arg-type]


@given(st.binary(max_size=40), st.lists(st.integers(0, 40)))
def test_a_stream_cut_anywhere_gives_what_decoding_at_once_gives(data: bytes, cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [list(data[start:end]) for start, end in pairwise(bounds)]

    lenient = TOKENIZER.stream_decoder(errors="replace")
    assert "".join(map(lenient.push, pieces)) + lenient.finish() == data.decode("utf-8", "replace")

    strict = TOKENIZER.stream_decoder()
    try:
        expected = TOKENIZER.decode(codes_of(data))
    except InputError as error:
        # Only a stream knows what came before; the offset it names is the same.
        with pytest.raises(InputError, match=str(error).split(" is not")[0]):
            "".join([*map(strict.push, pieces), strict.finish()])
    else:
        assert "".join(map(strict.push, pieces)) + strict.finish() == expected


def test_a_stream_gives_a_character_when_its_last_byte_arrives() -> None:
    stream = TOKENIZER.stream_decoder()
    assert [stream.push(byte) for byte in "a東".encode()] == ["a", "", "", "東"]
    assert stream.finish() == ""


def test_a_stream_refuses_what_is_no_code() -> None:
    stream = TOKENIZER.stream_decoder()
    with pytest.raises(CodeRangeError, match="codes from 65 to 256: bytes are 0 to 255"):
        stream.push([65, 256])
    with pytest.raises(CodeRangeError, match="codes from -1 to -1"):
        stream.push(-1)
    with pytest.raises(ShapeError, match=r"shape \[1, 2\]"):
        stream.push([[1, 2]])
    with pytest.raises(ShapeError, match="float64"):
        stream.push([0.5])
    assert stream.push([]) == ""
