"""Codes of published codecs in the streams of the models that were trained on them: delays, and exactly back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import multitok
from multitok.interleave import Plan, SegmentTemplate, Template
from multitok.protocol import Codes
from multitok.vocabulary import Vocabulary
from tests.tokenizers.adapters.audio import small

# Codebooks and delays: MusicGen and Parler-TTS (one step more for each), Moshi (the semantic codebook ahead).
PUBLISHED = {"MusicGen": (4, "delay"), "Parler-TTS": (9, "delay"), "Moshi": (8, "delay:0,1,1,1,1,1,1,1")}


@pytest.mark.parametrize("model", PUBLISHED)
def test_delays_are_applied_and_undone(model: str) -> None:
    count, pattern = PUBLISHED[model]
    values = np.random.default_rng(0).integers(0, 2048, (count, 11)).astype(np.int32)
    plan = Plan.of(pattern, count, (11,))
    delays = plan.pattern.numbers
    streams = plan.streams(plan.flatten(values))
    assert streams.shape == (count, 11 + max(delays))
    for row, delay, stream in zip(values, delays, streams, strict=True):
        assert stream[delay : delay + 11].tolist() == row.tolist()
        assert (np.delete(stream, np.s_[delay : delay + 11]) == -1).all()
    assert np.array_equal(plan.unflatten(plan.flatten(values)), values)


def test_codes_go_through_a_vocabulary_and_come_back(tmp_path: Path) -> None:
    """Sound -> codes -> one ID space, streams delayed as Moshi's -> codes -> sound."""
    tokenizer = multitok.load(small.folder(small.mimi(), tmp_path / "mimi"), kind="mimi")
    vocabulary = Vocabulary.build([multitok.load("text-bytes"), tokenizer])
    moshi = SegmentTemplate(begin="<|audio|>", end="<|/audio|>", pattern="delay:0,1,1,1")
    template = Template(segments={**Template().segments, "audio": moshi})
    interleaver = multitok.Interleaver(vocabulary, template)
    codes = tokenizer.encode(small.sound(30_000, 24_000))
    sequence = interleaver.encode(multitok.Document((multitok.Segment("audio", codes),)))
    assert sequence.spans[0].pattern == "delay:0,1,1,1"
    back = interleaver.decode(sequence).segments[0].codes
    assert back == codes
    assert np.array_equal(tokenizer.decode(back).samples, tokenizer.decode(codes).samples)


def test_snac_in_the_order_of_orpheus(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Depth first: each coarse code, then the first of its two finer ones with the two below it, then the second."""
    weights = multitok.registry.tokenizer_class("snac").make_module(small.SNAC, "here").state_dict()
    folder = small.write_snac(small.SNAC, weights, tmp_path_factory.mktemp("snac"))
    tokenizer = multitok.load(folder, kind="snac")
    codes = tokenizer.encode(small.sound(5_000, 24_000))
    coarse, middle, fine = tokenizer.levels(codes)
    expected = [
        code
        for f in range(codes.grid[0])
        for code in (
            coarse[f],
            middle[2 * f],
            *fine[4 * f : 4 * f + 2],
            middle[2 * f + 1],
            *fine[4 * f + 2 : 4 * f + 4],
        )
    ]
    order = [0, 1, 3, 4, 2, 5, 6]
    stream = Plan.of("flat", 7, codes.grid).flatten(codes.values[order])
    assert stream.tolist() == expected
    back = Plan.of("flat", 7, codes.grid).unflatten(stream)[np.argsort(order)]
    assert Codes(back, codes.extent) == codes
