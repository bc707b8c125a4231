"""Word errors: the edit distance of its definition, texts made alike, recognisers that are there."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitok.errors import InputError
from multitok.metrics.audio_quality import measure_audio
from multitok.metrics.audio_words import WordErrors, plain, recogniser, word_errors
from multitok.protocol import Waveform


def slow_distance(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    @cache
    def between(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(between(i - 1, j) + 1, between(i, j - 1) + 1, between(i - 1, j - 1) + (left[i - 1] != right[j - 1]))

    return between(len(left), len(right))


words = st.lists(st.sampled_from(["a", "bb", "c"]), max_size=8)


@given(words, words)
def test_rates_are_edit_distances(wanted: list[str], found: list[str]) -> None:
    errors = word_errors(" ".join(wanted), " ".join(found))
    if not wanted:
        assert errors.wer == (None if found else 0)
        return
    assert errors.wer == slow_distance(tuple(wanted), tuple(found)) / len(wanted)
    texts = " ".join(wanted), " ".join(found)
    assert errors.cer == slow_distance(tuple(texts[0]), tuple(texts[1])) / len(texts[0])


def test_texts_are_made_alike() -> None:
    assert plain(" Don't -- STOP,\n it's\t5_o'clock! ") == "don't stop it's 5 o'clock"
    assert plain("Ёлка, да!") == "ёлка да"
    assert word_errors("Hello, world", "hello WORLD.") == WordErrors(0, 0)


def test_a_listener_hears_what_was_decoded() -> None:
    rng = np.random.default_rng(0)
    heard: list[int] = []

    def listen(samples: np.ndarray) -> WordErrors:
        heard.append(samples.size)
        return WordErrors(0.25, 0.5)

    wave = Waveform(rng.standard_normal((1, 4_000)).astype(np.float32) * np.float32(0.1), 8_000)
    found = measure_audio(wave, wave, measures=(), listener=listen)
    assert (found.wer, found.cer, heard) == (0.25, 0.5, [8_000])


def test_a_recogniser_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="recogniser 'ears': give pocketsphinx"):
        recogniser("ears")


def test_pocketsphinx_gives_words() -> None:
    pytest.importorskip("pocketsphinx")
    listen = recogniser("pocketsphinx")
    samples = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * np.float32(0.1)
    assert listen(samples) == listen(samples)
