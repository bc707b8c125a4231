"""Every shipped streaming sound tokenizer: pieces, batches and threads give the bits of the whole."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

import multitok
from multitok.checkpoint import shipped_checkpoints
from multitok.protocol import Modality, StreamingTokenizer
from tests.stream_contract import check_streaming, check_thread_counts

load: Any = cache(multitok.load)


def is_streaming_sound(name: str) -> bool:
    tokenizer = load(name)
    return tokenizer.spec.modality is Modality.AUDIO and isinstance(tokenizer, StreamingTokenizer)


CHECKPOINTS = [name for name in sorted(shipped_checkpoints()) if is_streaming_sound(name)]


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_pieces_batches_and_threads_do_not_show(checkpoint: str) -> None:
    check_streaming(load(checkpoint))


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_long_clips_in_pieces(checkpoint: str) -> None:
    check_streaming(load(checkpoint), examples=60, max_s=20)


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_library_threads_do_not_show(checkpoint: str) -> None:
    check_thread_counts(checkpoint, load(checkpoint))


def test_left_open_a_stream_is_closed() -> None:
    tokenizer = load("dmel-80hz")
    with tokenizer.stream() as stream:
        stream.push(np.zeros(500, np.float32))
    with pytest.raises(multitok.MultitokError, match="this stream has ended"):
        stream.flush()
    with tokenizer.decode_stream() as stream:
        stream.push(np.zeros((80, 2), np.int32))
    with pytest.raises(multitok.MultitokError, match="this stream has ended"):
        stream.flush()
    stream.close()
