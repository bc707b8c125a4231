"""The interface's own values: specifications, codes, waveforms."""

from __future__ import annotations

import builtins
import re

import numpy as np
import pytest

import multitok
from multitok import errors
from multitok.errors import CodeRangeError, InputError, MultitokError, ShapeError, SpecError
from multitok.protocol import Codes, Modality, TokenizerSpec, Waveform

SPEC = TokenizerSpec(
    kind="image-patch",
    name="image",
    modality=Modality.IMAGE,
    codebook_sizes=(8, 4),
    grid_axes=("h", "w"),
    stride=(2, 3),
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name=''"),
        ({"name": "a b"}, "name='a b'"),
        ({"kind": "<x>"}, "kind='<x>'"),
        ({"codebook_sizes": ()}, "at least one size"),
        ({"codebook_sizes": (0,)}, "at least one size"),
        ({"grid_axes": ("h", "h")}, "each once"),
        ({"stride": (2,)}, "one number >= 0 for each"),
        ({"stride": (2, -1)}, "one number >= 0 for each"),
        ({"sample_rate_hz": 0}, "a rate above 0"),
    ],
)
def test_a_specification_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    fields = {name: getattr(SPEC, name) for name in SPEC.__slots__}
    with pytest.raises(SpecError, match=message):
        TokenizerSpec(**{**fields, **change})


def test_a_specification_from_json_says_what_is_wrong() -> None:
    assert TokenizerSpec.from_json(SPEC.to_json()) == SPEC
    for data in ({}, {**SPEC.to_json(), "surprise": 1}, {**SPEC.to_json(), "modality": "smell"}):
        with pytest.raises(SpecError, match="not a tokenizer specification"):
            TokenizerSpec.from_json(data)


def test_full_extent_is_the_grid_times_the_stride() -> None:
    assert SPEC.full_extent((4, 5)) == (8, 15)


def test_check_names_the_codebook_and_its_range() -> None:
    values = np.zeros((2, 1, 1), np.int32)
    SPEC.check(Codes(values, (2, 3)))
    values[1] = 4
    with pytest.raises(CodeRangeError, match=r"code 4 in codebook 1 of 'image-patch': allowed are 0 to 3"):
        SPEC.check(Codes(values, (2, 3)))
    with pytest.raises(ShapeError, match=r"2 codebooks over the axes .*give \[2, h, w\]"):
        SPEC.check(Codes(np.zeros((2, 5), np.int32), (5,)))


def test_codes_are_int32_read_only_and_compare_by_content() -> None:
    source = np.arange(6, dtype=np.int64).reshape(1, 6)
    codes = Codes(source, (6,))
    assert codes.values.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        codes.values[0, 0] = 1
    assert codes == Codes(source.astype(np.uint8), (6,))
    assert codes != Codes(source, (5,))
    assert codes != "codes"
    assert (codes.num_codebooks, codes.grid, codes.num_tokens) == (1, (6,), 6)
    with pytest.raises(TypeError, match="unhashable"):
        hash(codes)


@pytest.mark.parametrize(
    ("values", "extent"),
    [
        (np.zeros(3, np.int32), ()),
        (np.zeros((0, 3), np.int32), (3,)),
        (np.zeros((1, 3), np.float32), (3,)),
        (np.zeros((1, 3), np.int32), (3, 3)),
        (np.zeros((1, 3), np.int32), (-1,)),
    ],
)
def test_arrays_that_are_no_codes_are_refused(values: np.ndarray, extent: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="give"):
        Codes(values, extent)


def test_codes_beyond_int32_are_refused_not_wrapped() -> None:
    with pytest.raises(CodeRangeError, match="codes are int32"):
        Codes(np.array([[2**31]]), (1,))


def test_a_waveform_takes_one_channel_flat_and_refuses_rate_0() -> None:
    wave = Waveform(np.zeros(8000, np.float64), 16_000)
    assert (wave.samples.shape, wave.samples.dtype, wave.duration_s) == ((1, 8000), np.float32, 0.5)
    with pytest.raises(InputError, match="sample_rate_hz=0"):
        Waveform(np.zeros(3, np.float32), 0)
    with pytest.raises(InputError, match=r"samples of shape \[0, 3\]"):
        Waveform(np.zeros((0, 3), np.float32), 8000)


def test_every_error_is_also_the_builtin_its_docstring_says() -> None:
    drawn = re.findall(r"── (\w+Error) +(?:\((\w+)\))?", errors.__doc__ or "")
    assert len(drawn) == len([error for error in vars(errors).values() if isinstance(error, type)]) - 1
    for name, builtin in drawn:
        error = getattr(errors, name)
        assert issubclass(error, MultitokError)
        assert not builtin or issubclass(error, getattr(builtins, builtin))


@pytest.mark.parametrize("dtype", ["int16", "int64", "uint8", "bool", "complex64"])
def test_a_waveform_of_anything_but_floats_is_refused(dtype: str) -> None:
    with pytest.raises(InputError, match=f"samples of dtype {dtype}: give floating point with full scale 1"):
        Waveform(np.ones(4, dtype), 16_000)


def test_codes_of_pieces_are_joined_along_the_first_axis() -> None:
    whole = Codes(np.arange(24).reshape(2, 4, 3), (7, 9))
    parts = [Codes(whole.values[:, :3], (6, 9)), Codes(whole.values[:, 3:], (1, 9))]
    assert Codes.join(iter(parts)) == whole
    assert Codes.join([whole]) == whole
    with pytest.raises(InputError, match="no parts"):
        Codes.join([])


@pytest.mark.parametrize(
    ("checkpoint", "streams"),
    [("dmel-80hz", True), ("video-4x8x8", True), ("image-patch8", False), ("text-bytes", False)],
)
def test_tokenizers_tell_whether_they_stream(checkpoint: str, streams: bool) -> None:
    assert isinstance(multitok.load(checkpoint), multitok.StreamingTokenizer) == streams
