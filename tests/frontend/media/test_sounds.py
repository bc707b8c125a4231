"""Sound in chunks, and sound that PyAV reads: whole equals chunks, levels and lengths are right, damage is refused."""

from __future__ import annotations

import functools
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.errors import InputError, MediaError, MissingExtraError
from multitok.frontend.media import Limits, iter_audio, probe, read, records, write, write_audio
from multitok.protocol import Modality, Waveform
from tests.frontend.media import clips_samples, samples
from tests.frontend.media.test_damage import damage, edits

NUM_FRAMES = 20_000

# Name -> codec, container, rate, channels, samples by which the sound comes later, correlation at least.
TRACKS: dict[str, tuple[str, str, int, int, int, float]] = {
    "speech.m4a": ("aac", "ipod", 16_000, 1, 0, 0.999),
    "music.m4a": ("alac", "ipod", 44_100, 2, 0, 0.999_999),
    "speech.aac": ("aac", "adts", 16_000, 1, 1_024, 0.999),
    "speech.wma": ("wmav2", "asf", 44_100, 2, 0, 0.99),
    "phone.g722": ("g722", "g722", 16_000, 1, 22, 0.999),
    "phone.amr": ("libopencore_amrnb", "amr", 8_000, 1, 40, 0.9),
    "voice.mka": ("pcm_s16le", "matroska", 48_000, 2, 0, 0.999_999),
    "bytes.mka": ("pcm_u8", "matroska", 16_000, 1, 0, 0.999),
    "voice.weba": ("libopus", "webm", 48_000, 2, 0, 0.99),
}


def glide(rate_hz: int, channels: int) -> np.ndarray:
    t = np.arange(NUM_FRAMES) / rate_hz
    return np.stack([0.4 * np.sin(2 * np.pi * (300 * t + 400 * t**2) + c) for c in range(channels)]).astype(np.float32)


def track(codec: str, container: str, rate_hz: int, channels: int) -> bytes:
    """A glide as PyAV writes it."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=rate_hz)
        stream.layout = "mono" if channels == 1 else "stereo"
        stream.bit_rate = 12_200 if "amr" in codec else 64_000 * channels
        frame = av.AudioFrame.from_ndarray(glide(rate_hz, channels), format="fltp", layout=stream.layout.name)
        frame.sample_rate, frame.pts = rate_hz, 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    return buffer.getvalue()


@functools.cache
def file(name: str) -> bytes:
    return track(*TRACKS[name][:4]) if name in TRACKS else samples.files()[name]


SOUND_FILES = ("int16.wav", "float.wav", "sound.flac", "vorbis.ogg", "speech.opus", "sound.mp3", "sound.aiff")


@pytest.mark.parametrize("name", TRACKS)
def test_sound_is_what_was_written(name: str) -> None:
    codec, _, rate_hz, channels, delay, correlation = TRACKS[name]
    sound = read(file(name), name)
    assert isinstance(sound, Waveform)
    assert (sound.sample_rate_hz, len(sound.samples), sound.samples.dtype) == (rate_hz, channels, np.float32)
    shortest = NUM_FRAMES - (2_048 if codec == "wmav2" else 0)  # that encoder drops what fills no frame
    assert shortest <= sound.samples.shape[1] < NUM_FRAMES + 3_000
    wanted, found = glide(rate_hz, channels)[:, 4_000:16_000], sound.samples[:, 4_000 + delay : 16_000 + delay]
    if codec != "wmav2":  # its delay is nowhere written
        assert min(map(lambda a, b: np.corrcoef(a, b)[0, 1], wanted, found)) > correlation
    assert found.std() == pytest.approx(wanted.std(), rel=0.1 if correlation > 0.9 else 0.3)
    info = probe(file(name), name)
    assert (info.modality, info.extent, info.sample_rate_hz) == (Modality.AUDIO, sound.samples.shape[1:], rate_hz)


@pytest.mark.parametrize("name", [*TRACKS, *SOUND_FILES])
@pytest.mark.parametrize("chunk_s", [0.001, 0.0371, 0.5, 60])
def test_chunks_are_the_whole(name: str, chunk_s: float) -> None:
    whole = read(file(name), name)
    assert isinstance(whole, Waveform)
    chunks = list(iter_audio(file(name), name, chunk_s=chunk_s))
    assert {chunk.sample_rate_hz for chunk in chunks} == {whole.sample_rate_hz}
    assert np.array_equal(np.concatenate([chunk.samples for chunk in chunks], axis=1), whole.samples)
    size = max(round(chunk_s * whole.sample_rate_hz), 1)
    assert [chunk.samples.shape[1] for chunk in chunks[:-1]] == [size] * (len(chunks) - 1)
    assert 0 < chunks[-1].samples.shape[1] <= size


def test_a_path_is_read_as_its_content_is(tmp_path: Path) -> None:
    path = tmp_path / "speech.m4a"
    path.write_bytes(file("speech.m4a"))
    left, right = read(path), read(file("speech.m4a"), "speech.m4a")
    assert isinstance(left, Waveform)
    assert isinstance(right, Waveform)
    assert np.array_equal(left.samples, right.samples)


def video_with_sound() -> bytes:
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        picture: Any = output.add_stream("mpeg4", rate=25)
        picture.height, picture.width, picture.pix_fmt = 48, 64, "yuv420p"
        sound: Any = output.add_stream("aac", rate=48_000)
        sound.layout = "stereo"
        for index in range(10):
            for packet in picture.encode(av.VideoFrame.from_ndarray(clips_samples.numbered(index))):
                output.mux(packet)
        frame = av.AudioFrame.from_ndarray(glide(48_000, 2), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 48_000, 0
        for packet in (*picture.encode(None), *sound.encode(frame), *sound.encode(None)):
            output.mux(packet)
    return buffer.getvalue()


def test_the_sound_track_of_a_video_is_read_on_request() -> None:
    data = video_with_sound()
    frames = read(data, "clip.mp4")
    assert isinstance(frames, np.ndarray)
    assert len(frames) == 10
    sound = read(data, "clip.mp4", modality=Modality.AUDIO)
    assert isinstance(sound, Waveform)
    chunks = list(iter_audio(data, "clip.mp4"))
    assert np.array_equal(np.concatenate([chunk.samples for chunk in chunks], axis=1), sound.samples)
    assert np.corrcoef(glide(48_000, 2)[1, 4_000:16_000], sound.samples[1, 4_000:16_000])[0, 1] > 0.99


def test_a_video_without_sound_is_refused() -> None:
    with pytest.raises(MediaError, match=r"silent\.mp4: the file has no sound track"):
        read(clips_samples.written(3, codec="mpeg4"), "silent.mp4", modality=Modality.AUDIO)


@pytest.mark.parametrize(
    ("name", "cut"),
    [(name, cut) for name in TRACKS if name != "phone.g722" for cut in (1, 100, 700)],
)
def test_sound_that_is_cut_short_is_refused(name: str, cut: int) -> None:
    with pytest.raises(MediaError, match=f"^{name}: "):
        list(iter_audio(file(name)[:-cut], name))


@pytest.mark.parametrize("name", TRACKS)
def test_damage(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True, database=None)
    @given(changes=edits)
    def attempt(changes: list[tuple[str, int, int]]) -> None:
        data, outcomes = damage(file(name), changes), []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):
                try:
                    outcomes.append([raw.samples.shape for _, raw in records(data, name, limits=LIMITS)])  # type: ignore[union-attr]
                except InputError as error:
                    outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]
        assert not isinstance(outcomes[0], str) or outcomes[0].startswith(f"{name}: ")

    attempt()


LIMITS = Limits(max_bytes=1 << 22, max_audio_s=60.0)


@pytest.mark.parametrize("name", ["speech.m4a", "int16.wav"])
def test_limits(name: str) -> None:
    for take in (read, lambda *a, **k: list(iter_audio(*a, **k))):
        with pytest.raises(InputError, match=r"s of sound; the limit is max_audio_s=0\.1"):
            take(file(name), name, limits=Limits(max_audio_s=0.1))
    decoded = Limits(max_bytes=len(file(name)))
    if name == "speech.m4a":
        with pytest.raises(InputError, match=r"would take .* bytes decoded; the limit is max_bytes="):
            read(file(name), name, limits=decoded)
    # Chunk by chunk the whole is never in memory.
    assert list(iter_audio(file(name), name, limits=decoded))


def test_what_iter_audio_refuses() -> None:
    with pytest.raises(InputError, match="chunk_s=0: give seconds above 0"):
        next(iter_audio(file("int16.wav"), "a.wav", chunk_s=0))
    with pytest.raises(MediaError, match="holds a PNG image, but modality='audio' was asked for"):
        next(iter_audio(samples.files()["still.png"], "a.wav"))
    with pytest.raises(MediaError, match="holds a PNG image"):
        read(samples.files()["still.png"], "a.g722")
    bad = samples.tone()
    bad[1, 2_345] = np.nan
    chunks = iter_audio(samples.encoded_sound(bad, "WAV", "FLOAT"), "a.wav", chunk_s=0.01)
    with pytest.raises(InputError, match="sample 2,345 is nan"):
        list(chunks)


def test_without_pyav_its_formats_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'multitok\[video\]'"):
        read(b"#!AMR\n" + bytes(50), "a.amr")


@given(cuts=st.lists(st.integers(0, 3_000), max_size=5), extension=st.sampled_from(["wav", "flac"]))
@settings(max_examples=20, deadline=None)
def test_sound_written_in_chunks_is_the_file_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], extension: str
) -> None:
    folder = tmp_path_factory.mktemp("sound")
    sound = samples.tone(channels=1) * 3
    whole = write(folder / f"a.{extension}", Modality.AUDIO, Waveform(sound, 16_000))
    pieces = np.split(sound[0], sorted(cuts))
    parts = write_audio(folder / f"b.{extension}", iter(pieces), 16_000)
    left, right = read(whole), read(parts)
    assert isinstance(left, Waveform)
    assert isinstance(right, Waveform)
    assert np.array_equal(left.samples, right.samples)
    if extension == "wav":
        assert whole.read_bytes() == parts.read_bytes()


def test_what_write_audio_refuses(tmp_path: Path) -> None:
    assert write_audio(tmp_path / "a", [np.ones(3, np.float32)], 8_000).name == "a.wav"
    with pytest.raises(InputError, match=r"audio is written to \.wav, \.flac"):
        write_audio(tmp_path / "a.mp3", [], 8_000)
    with pytest.raises(FileNotFoundError, match="make it first"):
        write_audio(tmp_path / "b/a.wav", [], 8_000)
    with pytest.raises(InputError, match="an empty sound file cannot be read back"):
        write_audio(tmp_path / "b.wav", [], 8_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav"]
