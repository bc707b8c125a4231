"""Train a codec: from sound files to a tokenizer, live and resumable.

    result = train_codec(["recordings"], "runs/mine", options=TrainingOptions(minutes=60))
    multitok.save(result.tokenizer, "my-codec", card=result.card)

The same sound, preset and options give the same tokenizer to the bit on the same kind of machine with the same number
of threads, whether the run was killed and resumed or not. This module imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from multitok import __version__
from multitok.checkpoint import load
from multitok.errors import CheckpointError
from multitok.metrics.audio_quality import mel_distance_db
from multitok.nets.codec import Codec, freeze_codec, thaw_codec
from multitok.nets.vocoder_module import Vocoder, thaw_vocoder
from multitok.protocol import Modality, Waveform
from multitok.tokenizers.audio_codec import AudioCodec
from multitok.train.codec import CodecTrainer, Teacher
from multitok.train.codec_card import card_of
from multitok.train.codec_presets import DEFAULT_PRESET, CodecPreset
from multitok.train.codec_presets import preset as preset_of
from multitok.train.devices import choose_device, machine, takes_bf16
from multitok.train.items import FileItems, Items
from multitok.train.options import TrainingOptions
from multitok.train.sound_pool import SoundPool
from multitok.train.sound_training import SoundRun
from multitok.train.train_vocoder import spectrogram_tokenizer

# A tenth or less of the files is held out, at most so many, so many seconds of each.
MOST_HELD_OUT, LONGEST_S = 8, 10
# Clips that say how far the nets' inputs reach.
CALIBRATION_CLIPS = 96
# Part of a full learning rate for what starts from a trained codec.
FINE_TUNING_SHARE = 0.3


class CodecResult(NamedTuple):
    """What a training made.

    Args:
        tokenizer: Ready to use, and to `multitok.save`.
        card: Markdown for its checkpoint.
        steps: How many were done.
        mel_distance_db: On held-out sound, by number of codebooks; of the exact form. Empty where nothing was held
            out.
    """

    tokenizer: AudioCodec
    card: str
    steps: int
    mel_distance_db: dict[int, float]


def train_codec(
    data: Sequence[str | os.PathLike[str]] | Items,
    run: str | os.PathLike[str],
    *,
    preset: str | CodecPreset = DEFAULT_PRESET,
    options: TrainingOptions | None = None,
    vocoder: str | os.PathLike[str] | None = None,
    start_from: str | os.PathLike[str] | None = None,
    semantic: str | os.PathLike[str] | None = None,
    resume: bool = False,
    name: str = "audio",
    command: str = "",
    show: bool | None = None,
) -> CodecResult:
    """Train a codec on sound files.

    Args:
        data: Files and folders, or `Items`.
        run: Folder for the decoded sound, the log and the states of this run.
        preset: A name in `PRESETS`, or a `CodecPreset`.
        options: Seed, length and the like.
        vocoder: A checkpoint of spectrogram tokens with a vocoder, which the decoder starts from where its net has
            the same shape: about five times as fast as a start at random.
        start_from: A codec's checkpoint to start from; its shape is taken, and its codes change.
        semantic: A checkpoint of speech units whose features the first codebook learns.
        resume: Go on with the run in the folder; everything else has to be as it was.
        name: Of the tokenizer inside a vocabulary.
        command: What the card gives as the command.
        show: As for `SoundWatch`.

    Returns:
        The tokenizer and its card.

    Raises:
        InputError: Nothing can be read.
        JobError: The run folder is taken, or is not that of this run; or the training diverged.
        CheckpointError: A checkpoint cannot be read, or is of another kind.
        SpecError: An option or a preset that cannot be, or a vocoder of another shape.
        MissingExtraError: TensorBoard is asked for and not there.
    """
    options = options or TrainingOptions()
    items = data if not isinstance(data, Sequence) else FileItems([Path(each) for each in data], Modality.AUDIO)
    chosen = preset_of(preset) if isinstance(preset, str) else preset
    known = None if start_from is None else _codec(start_from)
    if known is not None:
        same = known.codec.config.num_codebooks == chosen.codec.num_codebooks
        weights = chosen.level_weights if same else ()
        chosen = replace(chosen, codec=known.codec.config, level_weights=weights)
    decoder = None if vocoder is None or known is not None else _vocoder(vocoder)
    teacher = None if semantic is None else _teacher(semantic)
    asked = {
        "preset": chosen.to_json(),
        "data": {"items": len(items), "digest": items.digest()},
        **{
            key: None if value is None else Path(value).name
            for key, value in (("vocoder", vocoder), ("start_from", start_from), ("semantic", semantic))
        },
        "multitok": __version__,
    }
    loop = SoundRun(Path(run), asked, options, steps=chosen.steps, show=show)
    loop.open(resume=resume)
    rate_hz = chosen.codec.sample_rate_hz
    pool = SoundPool.open(items, loop.folder.path / "sound", rate_hz, report=loop.folder.quarantine)
    wanted = min(len(pool.names) // 10, MOST_HELD_OUT) if options.held_out is None else options.held_out
    pool, held = pool.hold_out(wanted, LONGEST_S * rate_hz)
    device = choose_device(options.device)
    autocast = options.precision == "bf16" or (options.precision == "auto" and takes_bf16(device))
    batch = options.batch or chosen.batch

    def draw(step: int) -> torch.Tensor:
        return torch.from_numpy(pool.clips(step, batch, chosen.clip_samples, seed=options.seed)).to(device)

    def make(steps: int) -> CodecTrainer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            model = Codec(chosen.codec, seed=options.seed) if known is None else thaw_codec(known.codec)
        rate = options.learning_rate or chosen.learning_rate * (1.0 if known is None else FINE_TUNING_SHARE)
        return CodecTrainer(
            model.to(device),
            chosen,
            draw,
            steps=steps,
            seed=options.seed,
            learning_rate=rate,
            autocast=autocast,
            vocoder=None if decoder is None else decoder.to(device),
            teacher=teacher,
        )

    measured_on = torch.from_numpy(_starts(held, chosen.clip_samples)).to(device) if held else None

    def measure(trainer: CodecTrainer) -> dict[str, float]:
        return {} if measured_on is None else trainer.measure(measured_on)

    trainer = loop.train(make, measure)
    # Clips of steps that were never trained on.
    typical = [draw(trainer.steps + k).cpu().numpy() for k in range(-(-CALIBRATION_CLIPS // batch))]
    exact = freeze_codec(trainer.averaged, [clip for clips in typical for clip in clips])
    tokenizer = AudioCodec(exact, name=name)
    distances = mel_distances(tokenizer, held)
    how = f"{machine(device)}, nets in {'bf16' if autocast else 'fp32'}"
    card = card_of(
        loop.folder.read_run(), tokenizer, steps=trainer.step_index, names=pool.names, seconds=loop.seconds,
        minutes_of_sound=pool.num_samples / rate_hz / 60, lost=loop.folder.num_quarantined(), held_out=len(held),
        mel_distance_db=distances, command=command, how=how,
    )  # fmt: skip
    return CodecResult(tokenizer, card, trainer.step_index, distances)


def mel_distances(tokenizer: AudioCodec, clips: Sequence[NDArray[np.float32]]) -> dict[int, float]:
    """Mean distance of mel energies in dB after encoding and decoding, by number of codebooks: 1, 2, 4, ... and all.

    Args:
        tokenizer: What encodes.
        clips: [N] samples each at its rate; none give no figures.
    """
    total, rate_hz = tokenizer.spec.num_codebooks, tokenizer.codec.config.sample_rate_hz
    counts = sorted({total, *(2**power for power in range(total.bit_length()) if 2**power < total)})
    found: dict[int, list[float]] = {count: [] for count in counts} if clips else {}
    for clip in clips:
        codes = tokenizer.encode(Waveform(clip, rate_hz))
        for count, values in found.items():
            decoded = tokenizer.decode(codes, num_codebooks=count).samples[0]
            values.append(mel_distance_db(clip, decoded, rate_hz))
    return {count: float(np.mean(values)) for count, values in found.items()}


def _starts(clips: Sequence[NDArray[np.float32]], length: int) -> NDArray[np.float32]:
    """[B, length]: the beginning of each clip, followed by silence where it is shorter."""
    return np.stack([np.pad(clip[:length], (0, max(length - clip.size, 0))) for clip in clips])


def _codec(name_or_path: str | os.PathLike[str]) -> AudioCodec:
    found = load(name_or_path)
    if not isinstance(found, AudioCodec):
        raise CheckpointError(f"{name_or_path} is of kind {found.spec.kind!r}: training starts from an audio-codec")
    return found


def _vocoder(name_or_path: str | os.PathLike[str]) -> Vocoder:
    exact = spectrogram_tokenizer(name_or_path).vocoder
    if exact is None:
        raise CheckpointError(f"{name_or_path} holds no vocoder to start from: give another, or leave it out")
    return thaw_vocoder(exact)


def _teacher(name_or_path: str | os.PathLike[str]) -> Teacher:
    from multitok.tokenizers.audio_semantic import AudioSemantic

    found = load(name_or_path)
    if not isinstance(found, AudioSemantic):
        raise CheckpointError(f"{name_or_path} is of kind {found.spec.kind!r}: features come from an audio-semantic")
    return found
