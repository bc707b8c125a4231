"""The whole evaluation of sound: rows that add up, failures that stop nothing, labels, a report that opens."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

import multitok
from multitok.cli import cli
from multitok.errors import InputError, SpecError
from multitok.frontend import media
from multitok.frontend.resample import to_mono
from multitok.metrics import AudioEvaluator, ReportWriter, audio_tables, evaluate_audio
from multitok.metrics.audio_evaluation import AudioEvaluation
from multitok.metrics.audio_labels import Phone
from multitok.metrics.audio_unit_score import mfcc_units, score_units
from multitok.protocol import Codes, Json, Modality, TokenizerBase, TokenizerSpec, Waveform

DATA = Path(__file__).parent.parent.parent / "examples" / "data" / "sounds"
QUICK = ("stoi", "mel_distance_db", "si_sdr_db")


class Halves(TokenizerBase[Waveform]):
    """Sound of 8 kHz in two codebooks a sample, the high half and the low half; one alone is coarse."""

    level_droppable = True

    @property
    def spec(self) -> TokenizerSpec:
        return TokenizerSpec(
            kind="audio-halves", name="halves", modality=Modality.AUDIO, codebook_sizes=(16, 16), grid_axes=("t",),
            stride=(1,), sample_rate_hz=8_000,
        )  # fmt: skip

    def encode(self, raw: Waveform, /) -> Codes:
        mono = to_mono(raw, 8_000)
        if mono[0] == 1:
            raise InputError("it begins with a click: cut that off")
        bytes_ = np.clip(np.rint(mono * 127) + 128, 0, 255).astype(np.int32)
        return Codes(np.stack([bytes_ // 16, bytes_ % 16]), (mono.size,))

    def decode(self, codes: Codes, /, *, num_codebooks: int | None = None) -> Waveform:
        low: Any = codes.values[1] if num_codebooks in (None, 2) else 8
        return Waveform(((codes.values[0] * 16 + low) - 128).astype(np.float32)[None] / np.float32(127), 8_000)

    def get_config(self) -> dict[str, Json]:
        return {}


@cache
def speech() -> Waveform:
    wave: Waveform = media.read(DATA / "speech-russian-1.wav")
    return Waveform(to_mono(wave, 16_000)[16_000:40_000] * 3, 16_000)


def labels(rate_hz: float = 8.0) -> tuple[Phone, ...]:
    names = ["sil", "A", "B", "A", "C", "B", "A", "C", "A", "B", "C", "sil"]
    return tuple(Phone(name, at / rate_hz, (at + 1) / rate_hz) for at, name in enumerate(names))


@cache
def found() -> AudioEvaluation:
    items = {"anna-1.wav": speech(), "bert-1.wav": Waveform(speech().samples[:, ::-1], 16_000)}
    return evaluate_audio(
        Halves(), items, measures=QUICK, peers=["Opus"], runs=1, changes=["gain -6 dB", "noise 40 dB"],
        labels={"anna-1": labels(80), "bert-1": labels(80)}, recognise=lambda samples: f"a b {samples.size % 2}",
    )  # fmt: skip


def test_rates_and_levels() -> None:
    evaluation = found()
    assert (evaluation.tokenizer, evaluation.sample_rate_hz, evaluation.failures) == ("halves", 8_000, ())
    first, second = evaluation.mean
    assert (first.num_codebooks, second.num_codebooks) == (1, 2)
    assert (first.nominal_bps, second.nominal_bps) == pytest.approx((32_000, 64_000))
    assert first.entropy_bps == pytest.approx(8_000 * evaluation.codebooks[0].entropy_bits)
    assert second.entropy_bps < second.nominal_bps
    assert (first.quality.si_sdr_db or 0) < (second.quality.si_sdr_db or 0)
    assert (first.quality.mel_distance_db or 0) > (second.quality.mel_distance_db or 0)
    assert first.quality.pesq_wb is None
    assert (first.quality.wer, first.quality.cer) == (0, 0)
    for level in evaluation.items[0].levels:
        peer = level.peers["Opus"]
        assert (peer.num_bits or math.inf) <= level.nominal_bps * evaluation.items[0].duration_s
        assert peer.quality is not None
    assert first.peers_bps["Opus"] == pytest.approx(30_000, rel=0.1)
    assert evaluation.speed is not None
    assert evaluation.speed.encode_rtf > 0


def test_stability_is_a_mean_of_shares() -> None:
    evaluation = found()
    shares = [item.stability["noise 40 dB"] for item in evaluation.items]
    assert evaluation.stability["noise 40 dB"] == pytest.approx(np.mean(shares))
    assert evaluation.stability["gain -6 dB"] < evaluation.stability["noise 40 dB"] < 1


def test_units_are_scored_beside_mfcc() -> None:
    evaluation = found()
    assert evaluation.units is not None
    assert evaluation.mfcc is not None
    assert (evaluation.units.num_clips, evaluation.units.num_speakers) == (2, 2)
    assert 0 <= evaluation.units.pnmi < evaluation.mfcc.pnmi <= 1
    assert evaluation.units.rates.frame_rate_hz == 8_000
    assert evaluation.mfcc.rates.frame_rate_hz == 50
    assert evaluation.mfcc.rates.num_frames == 2 * 75


def test_units_that_are_the_phones_score_full_marks() -> None:
    said = labels()
    names = [phone.name for phone in said]
    units = {clip: np.repeat(np.unique(names, return_inverse=True)[1], 5) for clip in ("anna-1", "bert-1")}
    score = score_units(units, dict.fromkeys(units, said), codebook_size=4, frame_rate_hz=40)
    assert (score.pnmi, score.phone_purity, score.cluster_purity) == pytest.approx((1, 1, 1))
    assert score.speaker_nmi == pytest.approx(0, abs=1e-9)
    assert score.rates.dedup_rate == pytest.approx(1 - 12 / 60)


def test_mfcc_units_are_clusters() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 39)).astype(np.float32)[rng.integers(0, 3, 50)]
    units = mfcc_units({"a": rows[:20], "b": rows[20:]}, codebook_size=3)
    both = np.concatenate([units["a"], units["b"]])
    assert len(np.unique(both)) == 3
    assert all(len(np.unique(both[(rows == row).all(axis=1)])) == 1 for row in rows)


def test_a_clip_that_is_refused_is_listed_and_the_others_go_on() -> None:
    bad = Waveform(np.array([1, 0, 0, 0], np.float32), 8_000)
    items = [("good", speech()), ("bad", bad), ("silent", Waveform(np.zeros(8_000), 8_000)), ("fine", speech())]
    evaluation = evaluate_audio(Halves(), items, measures=QUICK, peers=(), runs=0, changes=())
    assert [item.name for item in evaluation.items] == ["good", "fine"]
    assert [failure.name for failure in evaluation.failures] == ["bad", "silent"]
    assert (evaluation.speed, evaluation.units, evaluation.stability) == (None, None, {})
    json.dumps(evaluation.to_json(), allow_nan=False)


def test_levels_can_be_chosen() -> None:
    one = evaluate_audio(Halves(), {"a": speech()}, measures=("stoi",), levels=[1], peers=(), runs=0, changes=())
    assert [level.num_codebooks for level in one.mean] == [1]
    bands = evaluate_audio(
        multitok.load("dmel-80hz"), {"a": speech()}, measures=("stoi",), peers=("mel Griffin-Lim",), runs=0, changes=()
    )
    assert [level.num_codebooks for level in bands.mean] == [80]
    beside = bands.mean[0].peers["mel Griffin-Lim"]
    assert beside is not None
    assert (beside.stoi or 0) > (bands.mean[0].quality.stoi or 1) - 0.05
    assert bands.mean[0].peers_bps["mel Griffin-Lim"] is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokenizer": "text-bytes"}, "give a tokenizer for audio"),
        ({"peers": ["x264"]}, "the codecs for audio are"),
        ({"measures": ["psnr"]}, "measures psnr: known are"),
        ({"changes": ["louder"]}, "changes louder: known are"),
        ({"levels": [3]}, "levels 3: 'audio-halves' decodes 1, 2"),
        ({"runs": -1}, "at least 0 runs"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(options: dict[str, Any], words: str) -> None:
    name = options.pop("tokenizer", None)
    with pytest.raises(SpecError, match=words):
        AudioEvaluator(multitok.load(name) if name else Halves(), **options)


def test_it_is_json_that_says_all() -> None:
    data = json.loads(json.dumps(found().to_json(), allow_nan=False))
    assert data["modality"] == "audio"
    assert data["mean"][1]["peers_bps"]["Opus"] > 6_000
    assert data["units"]["rates"]["dedup_rate"] == found().units.rates.dedup_rate  # type: ignore[union-attr]
    assert data["items"][0]["stability"]["noise 40 dB"]


def test_tables_have_a_column_for_every_measure_there_is() -> None:
    header, rows = audio_tables.quality_rows(found())
    assert header == ["item", "codebooks", "kbit/s", "entropy", "STOI", "mel dB", "SI-SDR dB", "WER", "CER"]
    assert [row[0] for row in rows] == ["anna-1.wav"] * 2 + ["bert-1.wav"] * 2 + ["mean", "  Opus"] * 2
    assert audio_tables.mean_rows(found())[1] == rows[4:]
    assert all(len(row) == len(header) for row in rows)
    header, rows = audio_tables.unit_rows(found())
    assert [row[0] for row in rows] == ["halves", "MFCC"]
    assert "hours of sound an hour (" in audio_tables.speed_line(found())


def picture_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


def test_a_reports_links_and_pictures_open(tmp_path: Path) -> None:
    writer = ReportWriter(tmp_path / "report")
    evaluation = evaluate_audio(
        Halves(), {"a.wav": speech()}, measures=QUICK, peers=["Opus"], runs=0, changes=("shift by 1",),
        watch=writer.watcher("halves"),
    )  # fmt: skip
    page = writer.finish([evaluation]).read_text(encoding="utf-8")
    linked = [line.partition("](")[2].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert linked == ["stoi.png", "mel_distance.png", "sheets/halves/000-a.png"]
    for path in linked:
        assert picture_of(tmp_path / "report" / path).std() > 5
    assert "shift by 1" in page
    assert "  Opus" in page


def test_the_command_measures_files(tmp_path: Path) -> None:
    import soundfile

    folder = tmp_path / "sounds"
    folder.mkdir()
    soundfile.write(folder / "anna-1.wav", speech().samples[0], 16_000)
    (folder / "bad.wav").write_bytes(b"RIFF but no more")
    (tmp_path / "labels.json").write_text(json.dumps({"anna-1": [[p.name, p.end_s] for p in labels()]}))
    arguments = ["eval", "audio", "dmel-80hz", str(folder), "--measures", "stoi", "--peers", "none", "--runs", "1"]
    arguments += ["--changes", "shift by 1", "--labels", str(tmp_path / "labels.json")]
    done = CliRunner().invoke(cli, [*arguments, "--json", str(tmp_path / "all.json")])
    assert done.exit_code == 1, done.output
    assert "1 of 2 files could not be measured" in done.output
    for words in ("STOI", "anna-1.wav", "shift by 1", "MFCC", "mean of 80", "of real time"):
        assert words in done.output
    (data,) = json.loads((tmp_path / "all.json").read_text())
    assert [item["name"] for item in data["items"]] == ["anna-1.wav"]
    wrong = CliRunner().invoke(cli, ["eval", "audio", "image-patch8", str(folder)])
    assert "image-patch8 is a tokenizer for image: give one for audio" in wrong.output
    assert CliRunner().invoke(cli, ["eval", "audio", "dmel-80hz", str(folder), "--levels", "x"]).exit_code == 2
