"""Whatever happens to a file's bytes, reading it ends soon, in a raw item or in an `InputError`, without a warning."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multitok.errors import InputError
from multitok.frontend.media import Limits, probe_records, records
from multitok.protocol import Modality
from tests.frontend.media.samples import files

# Small, so that a damaged header cannot ask for much, and large enough for every sample.
LIMITS = Limits(max_bytes=1 << 22, max_pixels=1 << 18, max_frames=500, max_audio_s=60.0)
NAMES = sorted(files())

edits = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.integers(0, 10**6), st.integers(0, 7)),
        st.tuples(st.just("set"), st.integers(0, 10**6), st.sampled_from([0, 1, 0x7F, 0x80, 0xFE, 0xFF])),
        st.tuples(st.just("insert"), st.integers(0, 10**6), st.integers(0, 255)),
        st.tuples(st.just("drop"), st.integers(0, 10**6), st.integers(1, 40)),
        st.tuples(st.just("cut"), st.integers(0, 10**6), st.just(0)),
    ),
    min_size=1,
    max_size=4,
)


def damage(data: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    """Apply edits; half of the positions fall into the first 200 bytes, where the headers are."""
    damaged = bytearray(data)
    for change, where, value in changes:
        span = min(len(damaged), 200) if where % 2 else len(damaged)
        position = where // 2 % max(1, span)
        if change == "flip" and damaged:
            damaged[position] ^= 1 << value
        elif change == "set" and damaged:
            damaged[position] = value
        elif change == "insert":
            damaged.insert(position, value)
        elif change == "drop":
            del damaged[position : position + value]
        elif change == "cut":
            del damaged[position:]
    return bytes(damaged)


def outcome(data: bytes, name: str) -> str:
    """What reading gives, in words; only an `InputError` may be raised."""
    modality = Modality.VOLUME if name == "stack.tif" else None
    words = []
    for function in (records, probe_records):
        try:
            words.append(str([record_id for record_id, _ in function(data, name, modality=modality, limits=LIMITS)]))
        except InputError as error:
            words.append(str(error))
    assert all(word.startswith((f"{name}: ", "[")) for word in words), words
    return "; ".join(words)


def check_damage(name: str, changes: list[tuple[str, int, int]]) -> None:
    data = damage(files()[name], changes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert outcome(data, name) == outcome(data, name)


@pytest.mark.parametrize("name", NAMES)
def test_damage(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(changes=edits)
    def attempt(changes: list[tuple[str, int, int]]) -> None:
        check_damage(name, changes)

    attempt()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_much_damage(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    @settings(max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(changes=edits)
    def attempt(changes: list[tuple[str, int, int]]) -> None:
        check_damage(name, changes)

    attempt()
