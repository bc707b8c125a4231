"""What every streaming sound tokenizer must pass besides `tests/contract.py`: `check_streaming(tokenizer)`.

Pieces equal the whole, batches equal single clips, streams and threads do not disturb each other: all bit for bit.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from multitok.errors import InputError, ShapeError
from multitok.protocol import Codes, StreamingTokenizer, Waveform

# One failure, made small; explaining it takes longer than all else.
SETTINGS = settings(deadline=None, report_multiple_bugs=False, phases=(Phase.generate, Phase.shrink))
RATES_HZ = (8_000, 11_025, 22_050, 44_100, 48_000)


def check_streaming(tokenizer: Any, *, examples: int = 12, max_s: float = 1.0, decodes: bool = True) -> None:
    """Assert what the streams of a sound tokenizer promise.

    Args:
        tokenizer: What is tested.
        examples: Clips for each property.
        max_s: Seconds of the longest.
        decodes: It has a way back to sound.
    """
    assert isinstance(tokenizer, StreamingTokenizer)
    _check_encoder_splits(tokenizer, examples, max_s)
    _check_batches_and_threads(tokenizer, max_s, decodes)
    _check_chunks(tokenizer, max_s, decodes)
    _check_encoder_refusals(tokenizer)
    if decodes:
        _check_decoder_splits(tokenizer, max(examples // 2, 1), max_s)
        _check_decoder_refusals(tokenizer)


def sound(num_samples: int, rate_hz: int, *, channels: int = 1, seed: int = 0) -> Waveform:
    """A gliding tone with overtones, bursts of noise and silence between; the same in any part of a longer clip."""
    rng = np.random.default_rng(seed)
    t = np.arange(num_samples) / rate_hz
    glide = np.sin(2 * np.pi * (150 * t + 60 * t**2)) + 0.4 * np.sin(2 * np.pi * (450 * t + 180 * t**2))
    bursts = rng.normal(0, 0.3, (channels, num_samples)) * (np.sin(9 * t + seed) > 0.5)
    loud = np.sin(4 * t + 0.3 * seed) > -0.6
    return Waveform((0.3 * glide * loud + bursts * loud).astype(np.float32), rate_hz)


def encode_in_pieces(tokenizer: Any, wave: Waveform, cuts: Sequence[int]) -> Codes:
    """Codes of a clip that is pushed in pieces, each in a buffer that is used again, as audio drivers do."""
    channels, length = wave.samples.shape
    bounds = [0, *sorted(min(cut, length) for cut in cuts), length]
    with tokenizer.stream(sample_rate_hz=wave.sample_rate_hz, channels=channels) as stream:
        parts = []
        for start, end in itertools.pairwise(bounds):
            buffer = wave.samples[:, start:end].copy()
            parts.append(stream.push(buffer if channels > 1 or start % 2 else buffer[0]))
            buffer[:] = np.nan
        parts.append(stream.flush())
        return Codes(np.concatenate(parts, axis=1), (stream.num_samples,))


def decode_in_pieces(tokenizer: Any, codes: Codes, cuts: Sequence[int]) -> NDArray[np.float32]:
    """Samples of codes that are pushed in pieces, each in a buffer that is used again."""
    bounds = [0, *sorted(min(cut, codes.grid[0]) for cut in cuts), codes.grid[0]]
    with tokenizer.decode_stream() as stream:
        parts = []
        for start, end in itertools.pairwise(bounds):
            buffer = codes.values[:, start:end].copy()
            parts.append(stream.push(buffer))
            buffer[:] = 0
        parts.append(stream.flush(codes.extent[0]))
    return np.concatenate(parts)


def _check_encoder_splits(tokenizer: Any, examples: int, max_s: float) -> None:
    own_hz, hop = tokenizer.spec.sample_rate_hz, tokenizer.spec.stride[0]

    @given(
        rate_hz=st.sampled_from((own_hz, *RATES_HZ)),
        channels=st.sampled_from((1, 1, 2, 3, 8)),
        duration=st.one_of(st.integers(1, 3 * hop), st.floats(0.01, max_s)),
        cuts=st.lists(st.floats(0, 1), max_size=8),
        seed=st.integers(0, 99),
    )
    @settings(SETTINGS, max_examples=examples)
    def check(rate_hz: int, channels: int, duration: float, cuts: list[float], seed: int) -> None:
        length = duration if isinstance(duration, int) else int(duration * rate_hz)
        wave = sound(length, rate_hz, channels=channels, seed=seed)
        whole = tokenizer.encode(wave)
        assert whole.extent == (-(-length * own_hz // rate_hz),)
        assert whole.grid == (-(-whole.extent[0] // hop),)
        assert encode_in_pieces(tokenizer, wave, [int(cut * length) for cut in cuts]) == whole

    check()
    # As small as it gets: sample by sample.
    wave = sound(2 * hop + 3, own_hz)
    assert encode_in_pieces(tokenizer, wave, range(wave.samples.size)) == tokenizer.encode(wave)


def _check_decoder_splits(tokenizer: Any, examples: int, max_s: float) -> None:
    rate_hz = tokenizer.spec.sample_rate_hz

    @given(
        duration_s=st.floats(1 / rate_hz, max_s),
        cuts=st.lists(st.integers(0, 200), max_size=8),
        seed=st.integers(0, 99),
    )
    @settings(SETTINGS, max_examples=examples)
    def check(duration_s: float, cuts: list[int], seed: int) -> None:
        codes = tokenizer.encode(sound(max(int(duration_s * rate_hz), 1), rate_hz, seed=seed))
        whole = tokenizer.decode(codes)
        assert whole.samples.shape == (1, *codes.extent)
        assert np.array_equal(decode_in_pieces(tokenizer, codes, cuts), whole.samples[0])

    check()
    codes = tokenizer.encode(sound(int(max_s * rate_hz), rate_hz))
    frame_by_frame = decode_in_pieces(tokenizer, codes, range(codes.grid[0]))
    assert np.array_equal(frame_by_frame, tokenizer.decode(codes).samples[0])


def _check_batches_and_threads(tokenizer: Any, max_s: float, decodes: bool) -> None:
    own_hz = tokenizer.spec.sample_rate_hz
    lengths = (1, int(max_s * own_hz), 777, int(0.3 * own_hz))
    waves = [sound(n, own_hz, seed=i) for i, n in enumerate(lengths)]
    waves.append(sound(5_000, 44_100, channels=2, seed=9))
    single = [tokenizer.encode(wave) for wave in waves]
    for order in ([0, 1, 2, 3, 4], [1, 0], [4, 3, 3, 2, 1], [2]):
        assert tokenizer.encode_batch([waves[i] for i in order]) == [single[i] for i in order]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(tokenizer.encode, waves * 2)) == single * 2
    if decodes:
        sounds = [tokenizer.decode(codes).samples for codes in single]
        for left, right in zip(tokenizer.decode_batch(single[::-1]), sounds[::-1], strict=True):
            assert np.array_equal(left.samples, right)
        with ThreadPoolExecutor(2) as pool:
            for left, right in zip(pool.map(tokenizer.decode, single), sounds, strict=True):
                assert np.array_equal(left.samples, right)
    # Two streams by turns.
    streams = [tokenizer.stream() for _ in waves[1:3]]
    parts: list[list[NDArray[np.int32]]] = [[], []]
    for start in range(0, lengths[1], 1_000):
        for stream, wave, out in zip(streams, waves[1:3], parts, strict=True):
            out.append(stream.push(wave.samples[:, start : start + 1_000]))
    for stream, out, codes in zip(streams, parts, single[1:3], strict=True):
        assert np.array_equal(np.concatenate([*out, stream.flush()], axis=1), codes.values)


def _check_chunks(tokenizer: Any, max_s: float, decodes: bool) -> None:
    wave = sound(int(max_s * 24_000), 24_000, channels=2)
    codes = tokenizer.encode(wave)
    starts = range(0, wave.samples.shape[1], 1_111)
    parts = list(tokenizer.encode_chunks(Waveform(wave.samples[:, i : i + 1_111], 24_000) for i in starts))
    assert Codes(np.concatenate([p.values for p in parts], 1), (sum(p.extent[0] for p in parts),)) == codes
    assert all(part.num_tokens == tokenizer.num_tokens(part.extent) for part in parts)
    if decodes:
        assert np.array_equal(np.concatenate(list(tokenizer.decode_chunks(parts))), tokenizer.decode(codes).samples[0])


def _check_encoder_refusals(tokenizer: Any) -> None:
    num_codebooks = tokenizer.spec.num_codebooks
    wave = sound(1_000, 48_000, channels=2)
    stream = tokenizer.stream(sample_rate_hz=48_000, channels=2)
    parts = [stream.push(wave.samples[:, :400]), stream.push(np.zeros((2, 0), np.float32))]
    assert (parts[1].shape, parts[1].dtype) == ((num_codebooks, 0), np.int32)
    with pytest.raises(ShapeError, match=r"for a stream of 2 channels: give \[2, n\]"):
        stream.push(wave.samples[0])
    with pytest.raises(ShapeError, match="is to be transposed"):
        stream.push(wave.samples.T)
    with pytest.raises(InputError, match="dtype int16: give floating point with full scale 1"):
        stream.push((wave.samples * 32_767).astype(np.int16))
    broken = wave.samples[:, 400:].copy()
    broken[1, 7] = np.inf
    with pytest.raises(InputError, match=r"sample 407 of channel 1 \(at 0.008 s\) is inf"):
        stream.push(broken)
    with pytest.raises(InputError, match="divide integer samples by their full scale"):
        stream.push(wave.samples * 32_767)
    # What was refused has left no trace.
    parts += [stream.push(wave.samples[:, 400:]), stream.flush()]
    assert np.array_equal(np.concatenate(parts, axis=1), tokenizer.encode(wave).values)
    for ended in (stream.push, lambda _: stream.flush()):
        with pytest.raises(InputError, match=r"this stream has ended.*stream\(\)"):
            ended(wave.samples)
    assert tokenizer.stream().flush().shape == (num_codebooks, 0)
    with pytest.raises(InputError, match="no samples: there is nothing to encode"):
        tokenizer.encode(Waveform(np.zeros((2, 0), np.float32), 16_000))
    with pytest.raises(InputError, match="chunks without any sample"):
        list(tokenizer.encode_chunks([]))
    with pytest.raises(InputError, match="a chunk at 8000 Hz after some at 48000 Hz"):
        list(tokenizer.encode_chunks([wave, Waveform(wave.samples, 8_000)]))
    with pytest.raises(InputError, match="give at least 1 of each"):
        tokenizer.stream(channels=0)


def _check_decoder_refusals(tokenizer: Any) -> None:
    hop = tokenizer.spec.stride[0]
    codes = tokenizer.encode(sound(3 * hop, tokenizer.spec.sample_rate_hz))
    stream = tokenizer.decode_stream()
    for bad in (codes.values[:, :, None], codes.values[:, 0], codes.values.astype(np.float32)):
        with pytest.raises(ShapeError):
            stream.push(bad)
    parts = [stream.push(codes.values[:, :0]), stream.push(codes.values)]
    for num_samples in (2 * hop, 3 * hop + 1):
        with pytest.raises(ShapeError, match=f"3 frames of codes for {num_samples} samples"):
            stream.flush(num_samples)
    parts.append(stream.flush())
    assert np.array_equal(np.concatenate(parts), tokenizer.decode(codes).samples[0])
    with pytest.raises(ShapeError, match=r"this stream has ended.*decode_stream\(\)"):
        stream.push(codes.values)
    assert tokenizer.decode_stream().flush().shape == (0,)


_DIGEST = """
import hashlib, sys, multitok
from tests.stream_contract import sound
codes = multitok.load(sys.argv[1]).encode(sound(100_000, 44_100, channels=2))
print(hashlib.sha256(codes.values.tobytes()).hexdigest(), "torch" in sys.modules)
"""


def check_thread_counts(checkpoint: str, tokenizer: Any, *, needs_torch: bool = False) -> None:
    """Assert that codes are those of processes whose libraries use 1 and 2 threads; nor is torch loaded in vain."""
    here = hashlib.sha256(tokenizer.encode(sound(100_000, 44_100, channels=2)).values.tobytes()).hexdigest()
    for threads in ("1", "2"):
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        done = subprocess.run(
            [sys.executable, "-c", _DIGEST, checkpoint],
            env={**os.environ, **limits},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [here, str(needs_torch)]
