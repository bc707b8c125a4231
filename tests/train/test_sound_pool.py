"""Decoded sound: once for the same files, clips by seed and step, what cannot be read left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from multitok.errors import InputError
from multitok.protocol import Modality
from multitok.train import sound_pool
from multitok.train.items import FileItems
from multitok.train.sound_pool import SoundPool
from tests.stream_contract import sound


def write_sounds(folder: Path, count: int, num_samples: int = 20_000) -> Path:
    """a.wav, b.wav, ... of different sound, the first one stereo at 8 kHz."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        wave = sound(num_samples, 16_000 if index else 8_000, channels=1 if index else 2, seed=index)
        soundfile.write(folder / f"{chr(97 + index)}.wav", wave.samples.T, wave.sample_rate_hz)
    return folder


def open_pool(folder: Path, run: Path) -> SoundPool:
    return SoundPool.open(FileItems([folder], Modality.AUDIO), run, 16_000)


def test_files_of_any_rate_become_one_channel_at_one_rate(tmp_path: Path) -> None:
    pool = open_pool(write_sounds(tmp_path / "in", 3), tmp_path / "run")
    assert pool.names == ["a.wav", "b.wav", "c.wav"]
    assert pool.num_samples == 40_000 + 20_000 + 20_000
    expected = sound(20_000, 16_000, seed=1).samples[0]
    assert np.abs(pool.middle(1, 10**6) - np.clip(expected, -1, 1)).max() < 2 / 32768
    assert pool.middle(0, 100).size == 100


def test_clips_depend_on_seed_and_step_alone(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / "in", 3)
    pool = open_pool(folder, tmp_path / "run")
    first = pool.clips(3, 4, 5_000, seed=1)
    assert first.shape == (4, 5_000)
    assert np.array_equal(open_pool(folder, tmp_path / "other").clips(3, 4, 5_000, seed=1), first)
    for step, seed in ((4, 1), (3, 2)):
        assert not np.array_equal(pool.clips(step, 4, 5_000, seed=seed), first)
    levels = 20 * np.log10(np.sqrt((pool.clips(0, 50, 20_000) ** 2).mean(axis=1)))
    assert -40 < levels.min() < levels.max() < -13


def test_a_short_file_is_followed_by_silence(tmp_path: Path) -> None:
    pool = open_pool(write_sounds(tmp_path / "in", 2, num_samples=300), tmp_path / "run")
    (clip,) = pool.clips(0, 1, 1_000)
    assert np.abs(clip[:300]).max() > 0
    assert not clip[600:].any()


def test_nothing_is_decoded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_sounds(tmp_path / "in", 2)
    before = open_pool(folder, tmp_path / "run").clips(0, 2, 1_000)
    with monkeypatch.context() as patch:
        patch.setattr(sound_pool, "_decode", lambda *_: pytest.fail("decoded again"))
        assert np.array_equal(open_pool(folder, tmp_path / "run").clips(0, 2, 1_000), before)
    write_sounds(folder, 3)
    assert len(open_pool(folder, tmp_path / "run").names) == 3


def test_what_cannot_be_read_is_reported(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / "in", 2)
    (folder / "broken.wav").write_bytes(b"RIFF\0\0\0\0WAVE")
    found: list[tuple[str, str, str]] = []
    items = FileItems([folder], Modality.AUDIO)
    pool = SoundPool.open(items, tmp_path / "run", 16_000, report=lambda *each: found.append(each))
    assert pool.names == ["a.wav", "b.wav"]
    assert [each[0] for each in found] == ["broken.wav"]
    (folder / "a.wav").unlink()
    (folder / "b.wav").unlink()
    with pytest.raises(InputError, match="none of the sound files"):
        open_pool(folder, tmp_path / "run")


def test_held_out_files_are_not_drawn_from(tmp_path: Path) -> None:
    pool = open_pool(write_sounds(tmp_path / "in", 5), tmp_path / "run")
    rest, held = pool.hold_out(2, 1_000)
    assert [clip.size for clip in held] == [1_000, 1_000]
    assert len(rest.names) == 3
    assert set(rest.names) < set(pool.names)
    one, few = open_pool(tmp_path / "in", tmp_path / "run").hold_out(9, 1_000)
    assert (len(one.names), len(few)) == (1, 4)
