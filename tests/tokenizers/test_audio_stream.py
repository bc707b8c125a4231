"""Every shipped streaming sound tokenizer: pieces, batches and threads give the bits of the whole."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multitok
from multitok.checkpoint import shipped_checkpoints
from multitok.errors import InputError
from multitok.frontend import media
from multitok.protocol import Modality, StreamingTokenizer, Waveform
from tests.audio_inputs import ACCEPTED, RATE_HZ, REFUSED
from tests.frontend.media.samples import encoded_sound
from tests.stream_contract import check_streaming, check_thread_counts, encode_in_pieces

ROOT = Path(__file__).parents[2]
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
    check_thread_counts(checkpoint, load(checkpoint), needs_torch=checkpoint == "semantic-whisper-base")


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


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_accepted(checkpoint: str, name: str) -> None:
    tokenizer, wave = load(checkpoint), ACCEPTED[name]()
    codes = tokenizer.encode(wave)
    tokenizer.spec.check(codes)
    assert codes.num_tokens == tokenizer.num_tokens(codes.extent) > 0
    length = wave.samples.shape[1]
    assert encode_in_pieces(tokenizer, wave, [1, length // 3, length // 3]) == codes
    back = tokenizer.decode(codes)
    assert back.samples.shape == (1, *codes.extent)
    assert np.isfinite(back.samples).all()


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(checkpoint: str, name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        load(checkpoint).encode(Waveform(make(), RATE_HZ))


def test_levels_of_files_are_exact() -> None:
    # The full scale of a format is 1, whatever its bits.
    steps = np.array([[-1.0, -0.5, 0.0, 0.5]], np.float32)
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
        wave = media.read(encoded_sound(steps, "WAV", subtype), "a.wav")
        assert isinstance(wave, Waveform)
        assert wave.samples.tolist() == steps.tolist()


def test_the_documentation_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs/audio.md").read_text(encoding="utf-8")
    section = page.partition("\n## Streaming\n")[2].partition("\n## ")[0]
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    blocks = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_documentation_names_every_input() -> None:
    page = (ROOT / "docs/audio.md").read_text(encoding="utf-8")
    section = page.partition("\n## What sound is accepted\n")[2].partition("\n## ")[0]
    for word in ("clipped", "DC", "silen", "1 sample", "8 channels", "384 kHz", "24", "NaN", "integer", "no sample"):
        assert word in section, word
