"""Train a vocoder for a tokenizer of spectrograms: from sound files to the tokenizer that decodes by it.

    result = train_vocoder(["recordings"], "runs/mine", options=TrainingOptions(minutes=60))
    multitok.save(result.tokenizer, "my-dmel", card=result.card)

Codes stay those of the tokenizer that it is trained for. The same sound and options give the same vocoder to the bit on
the same kind of machine with the same number of threads, whether the run was killed and resumed or not. This module
imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from multitok import __version__
from multitok.checkpoint import load
from multitok.errors import CheckpointError, SpecError
from multitok.nets.causal.config import CausalConfig
from multitok.nets.vocoder import ExactVocoder, VocoderConfig
from multitok.nets.vocoder_module import Vocoder, freeze_vocoder, thaw_vocoder
from multitok.protocol import Modality
from multitok.tokenizers.audio_dmel import AudioDMel
from multitok.tokenizers.audio_mel_vq import AudioMelVq
from multitok.train.devices import choose_device, machine, takes_bf16
from multitok.train.items import FileItems, Items
from multitok.train.options import TrainingOptions
from multitok.train.sound_pool import SoundPool
from multitok.train.sound_training import SoundRun
from multitok.train.vocoder import Batch, VocoderTrainer, batch_of, clip_samples

# Frames of a training clip, clips a step, and steps where nothing is said: about half an hour on one core.
CLIP_FRAMES, BATCH, STEPS = 64, 24, 2850
LEARNING_RATE = 2e-3
# A tenth or less of the files is held out, at most so many.
MOST_HELD_OUT = 8
# Clips that say how far the net's inputs reach.
CALIBRATION_CLIPS = 96


def preset(name: str, num_mels: int = 80) -> VocoderConfig:
    """Shape of a vocoder at 16 kHz.

    Args:
        name: "vocoder" (3.4 million weights), or "vocoder-small" (a tenth) for trials.
        num_mels: Bands that it reads.

    Raises:
        SpecError: There is no such preset.
    """
    sizes = {"vocoder": (256, 768, 8), "vocoder-small": (96, 192, 6)}
    if name not in sizes:
        raise SpecError(f"preset={name!r}: give one of {', '.join(sizes)}")
    channels, hidden, blocks = sizes[name]
    net = CausalConfig(
        in_dim=num_mels, out_dim=802, channels=channels, hidden=hidden, taps=7, dilations=(1,) * blocks, lookahead=2
    )
    return VocoderConfig(net=net)


class VocoderResult(NamedTuple):
    """What a training made.

    Args:
        tokenizer: The one that was asked for, with the vocoder in it.
        vocoder: As it is in there.
        card: Markdown for its checkpoint.
        steps: How many were done.
        held_out: The losses on held-out sound, of the trained floats; empty where nothing was held out.
    """

    tokenizer: AudioDMel | AudioMelVq
    vocoder: ExactVocoder
    card: str
    steps: int
    held_out: dict[str, float]


def train_vocoder(
    data: Sequence[str | os.PathLike[str]] | Items,
    run: str | os.PathLike[str],
    *,
    tokenizer: str | os.PathLike[str] = "dmel-80hz",
    config: str | VocoderConfig = "vocoder",
    options: TrainingOptions | None = None,
    start_from: str | os.PathLike[str] | None = None,
    resume: bool = False,
    command: str = "",
    show: bool | None = None,
) -> VocoderResult:
    """Train a vocoder on sound files.

    Args:
        data: Files and folders, or `Items`.
        run: Folder for the decoded sound, the log and the states of this run.
        tokenizer: A checkpoint of spectrogram tokens, whose codes stay.
        config: A name for `preset`, or a shape.
        options: Seed, length and the like.
        start_from: A checkpoint with a vocoder to start from; its shape is taken.
        resume: Go on with the run in the folder; everything else has to be as it was.
        command: What the card gives as the command.
        show: As for `SoundWatch`.

    Returns:
        The tokenizer with its vocoder, and a card.

    Raises:
        InputError: Nothing can be read.
        JobError: The run folder is taken, or is not that of this run; or the training diverged.
        CheckpointError: A checkpoint cannot be read, or is not one of spectrogram tokens.
        SpecError: An option or a shape that cannot be.
        MissingExtraError: TensorBoard is asked for and not there.
    """
    options = options or TrainingOptions()
    items = data if not isinstance(data, Sequence) else FileItems([Path(each) for each in data], Modality.AUDIO)
    target = spectrogram_tokenizer(tokenizer)
    known = None
    if start_from is not None:
        known = spectrogram_tokenizer(start_from).vocoder
        if known is None:
            raise CheckpointError(f"{start_from} holds no vocoder to start from: leave it out, or give another")
    shape = preset(config, target.mel.num_mels) if isinstance(config, str) else config
    shape = shape if known is None else known.config
    asked = {
        "vocoder": shape.to_json(),
        "data": {"items": len(items), "digest": items.digest()},
        "tokenizer": Path(tokenizer).name,
        "start_from": None if start_from is None else Path(start_from).name,
        "multitok": __version__,
    }
    loop = SoundRun(Path(run), asked, options, steps=STEPS, show=show)
    loop.open(resume=resume)
    pool = SoundPool.open(items, loop.folder.path / "sound", shape.sample_rate_hz, report=loop.folder.quarantine)
    wanted = min(len(pool.names) // 10, MOST_HELD_OUT) if options.held_out is None else options.held_out
    size = clip_samples(CLIP_FRAMES, target.mel)
    pool, held = pool.hold_out(wanted, size)
    device = choose_device(options.device)
    autocast = options.precision == "bf16" or (options.precision == "auto" and takes_bf16(device))
    batch = options.batch or BATCH

    def model() -> Vocoder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            return (Vocoder(shape) if known is None else thaw_vocoder(known)).to(device)

    spare = model()

    def draw(step: int) -> Batch:
        clips = pool.clips(step, batch, size, seed=options.seed)
        return batch_of(clips, spare, target.mel, target.requantized)

    held_out: dict[str, float] = {}
    whole = [np.pad(clip, (0, size - clip.size)) for clip in held]
    measured_on = batch_of(np.stack(whole), spare, target.mel, target.requantized) if held else None

    def make(steps: int) -> VocoderTrainer:
        rate = options.learning_rate or LEARNING_RATE
        return VocoderTrainer(model(), draw, steps=steps, seed=options.seed, learning_rate=rate, autocast=autocast)

    def measure(trainer: VocoderTrainer) -> dict[str, float]:
        held_out.update({} if measured_on is None else trainer.measure(measured_on))
        return dict(held_out)

    trainer = loop.train(make, measure)
    # Clips of steps that were never trained on.
    typical = [draw(trainer.steps + k).energies for k in range(-(-CALIBRATION_CLIPS // batch))]
    vocoder = freeze_vocoder(trainer.averaged.cpu(), [energies.cpu() for energies in typical])
    card = _card(loop, trainer, pool, held_out, command, f"{machine(device)}, nets in {'bf16' if autocast else 'fp32'}")
    return VocoderResult(target.with_vocoder(vocoder), vocoder, card, trainer.step_index, held_out)


def spectrogram_tokenizer(name_or_path: str | os.PathLike[str]) -> AudioDMel | AudioMelVq:
    """Load a checkpoint of spectrogram tokens.

    Args:
        name_or_path: Of a shipped checkpoint, or its folder.

    Raises:
        CheckpointError: It cannot be read, or is of another kind.
    """
    found = load(name_or_path)
    if not isinstance(found, (AudioDMel, AudioMelVq)):
        raise CheckpointError(
            f"{name_or_path} is of kind {found.spec.kind!r}: a vocoder goes with audio-dmel and audio-mel-vq"
        )
    return found


def _card(
    loop: SoundRun, trainer: VocoderTrainer, pool: SoundPool, held_out: Mapping[str, float], command: str, how: str
) -> str:
    run = loop.folder.read_run()
    lost = loop.folder.num_quarantined()
    begun = f"; started from {run['start_from']}" if run["start_from"] else ""
    losses = ", ".join(f"{name} {value:.4f}" for name, value in held_out.items())
    quality = f"Losses on held-out files, of the trained floats: {losses}. " if losses else "Nothing was held out. "
    lines = [
        f"# {run['tokenizer']} with a vocoder",
        "",
        f"The codes are those of {run['tokenizer']}; decoding is by a vocoder trained here.",
        "",
        "## Data",
        "",
        f"{len(pool.names):,} sound files trained on, {pool.num_samples / 16_000 / 60:.1f} minutes; {lost:,} could not "
        "be read. Add where they come from.",
        "",
        "## Licence",
        "",
        "Add the licence of the data.",
        "",
        "## Training",
        "",
        *([f"`{command}`", ""] if command else []),
        f"{trainer.step_index:,} steps of {run['steps']:,}, seed {run['options']['seed']}{begun}. "
        f"{loop.seconds / 60:.1f} minutes on {how}. multitok {run['multitok']}, torch {torch.__version__}.",
        "",
        "## Quality",
        "",
        f"{quality}Measure it by `multitok eval audio` on other files.",
        "",
    ]
    return "\n".join(lines)
