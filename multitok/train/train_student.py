"""Train a student of speech units: from speech files and a teacher to a streaming tokenizer.

    result = train_student(["speech"], "runs/mine", options=TrainingOptions(minutes=60))
    multitok.save(result.tokenizer, "my-units", card=result.card)

The student is a causal net that looks 67.5 ms ahead; the teacher may be any tokenizer of speech units, such as one
that reads ten seconds at once. The same speech, teacher and options give the same tokenizer to the bit on the same kind
of machine with the same number of threads, whether the run was killed and resumed or not. This module imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Literal, NamedTuple

import torch

from multitok import __version__
from multitok.checkpoint import fingerprint, load
from multitok.errors import CheckpointError, SpecError
from multitok.nets.causal.config import CausalConfig
from multitok.nets.causal.freeze import freeze
from multitok.protocol import Modality, Waveform
from multitok.tokenizers._semantic_frames import CausalNetFrontEnd, log_mel
from multitok.tokenizers.audio_semantic import SAMPLE_RATE_HZ, AudioSemantic
from multitok.train.devices import choose_device, machine, takes_bf16
from multitok.train.items import FileItems, Items
from multitok.train.options import TrainingOptions
from multitok.train.semantic import train_semantic
from multitok.train.sound_pool import SoundPool
from multitok.train.sound_training import SoundRun
from multitok.train.student import Batch, Clips, Student, StudentTrainer
from multitok.train.student_data import student_data

# Frames of a training clip, clips a step, and steps where nothing is said: about an hour on one core.
CLIP_FRAMES, BATCH, STEPS = 256, 12, 2500
LEARNING_RATE = 2e-3
# Clusterings that the student learns to tell, and clips that are measured on.
SIZES, HELD_OUT_CLIPS = (100, 500, 2000), 32
# Batches that say how far the net's inputs reach.
CALIBRATION_BATCHES = 8
# Files that the codebooks of the finished student are fitted to, at most.
CODEBOOK_FILES = 4_000

Voices = Literal["folder", "file", "one"]


def preset(name: str, num_mels: int = 80, dim: int = 128) -> CausalConfig:
    """Shape of a student.

    Args:
        name: "student" (4 million weights), or "student-small" (a tenth) for trials.
        num_mels: Bands that it reads.
        dim: Values that it gives.

    Raises:
        SpecError: There is no such preset.
    """
    sizes = {"student": (256, 768), "student-small": (96, 192)}
    if name not in sizes:
        raise SpecError(f"preset={name!r}: give one of {', '.join(sizes)}")
    channels, hidden = sizes[name]
    return CausalConfig(
        in_dim=num_mels, out_dim=dim, channels=channels, hidden=hidden, taps=5,
        dilations=(1, 2, 4, 8, 1, 2, 4, 8, 1, 2), stack=2, lookahead=3,
    )  # fmt: skip


class StudentResult(NamedTuple):
    """What a training made.

    Args:
        tokenizer: Units by the frozen student.
        card: Markdown for its checkpoint.
        steps: How many were done.
        held_out: The losses on held-out speech, of the trained floats; empty where nothing was held out.
    """

    tokenizer: AudioSemantic
    card: str
    steps: int
    held_out: dict[str, float]


def train_student(
    data: Sequence[str | os.PathLike[str]] | Items,
    run: str | os.PathLike[str],
    *,
    teacher: str | os.PathLike[str] | AudioSemantic = "semantic-whisper-base",
    config: str | CausalConfig = "student",
    sizes: Sequence[int] = SIZES,
    codebook_size: int = 500,
    voices: Voices = "folder",
    noise: Sequence[str | os.PathLike[str]] | Items | None = None,
    options: TrainingOptions | None = None,
    resume: bool = False,
    name: str = "speech",
    command: str = "",
    show: bool | None = None,
) -> StudentResult:
    """Train a student on speech files.

    Args:
        data: Files and folders of speech, or `Items`.
        run: Folder for the decoded sound, the targets, the log and the states of this run.
        teacher: A checkpoint of speech units, or the tokenizer itself.
        config: A name for `preset`, or a shape.
        sizes: Codebooks of the result, and of the clusterings that the student learns to tell; three at most.
        codebook_size: Which of them the tokenizer uses.
        voices: What one voice is: all files of a folder, each file, or all of them.
        noise: Files of other sound that are mixed in, such as music.
        options: Seed, length and the like; `held_out` counts clips.
        resume: Go on with the run in the folder; everything else has to be as it was.
        name: Of the tokenizer inside a vocabulary.
        command: What the card gives as the command.
        show: As for `SoundWatch`.

    Returns:
        The tokenizer and a card.

    Raises:
        InputError: Nothing can be read.
        JobError: The run folder is taken, or is not that of this run; or the training diverged.
        CheckpointError: The teacher cannot be read, or is none.
        SpecError: An option or a shape that cannot be.
        MissingExtraError: TensorBoard is asked for and not there.
    """
    options = options or TrainingOptions()
    if not 1 <= len(sizes) <= len(SIZES) or codebook_size not in sizes:
        raise SpecError(f"sizes={tuple(sizes)}, codebook_size={codebook_size}: give up to three sizes, and one of them")
    items = _items(data)
    others = None if noise is None else _items(noise)
    known = teacher if isinstance(teacher, AudioSemantic) else _teacher(teacher)
    shape = preset(config) if isinstance(config, str) else config
    asked = {
        "student": shape.to_json(),
        "data": {"items": len(items), "digest": items.digest()},
        "noise": None if others is None else others.digest(),
        "teacher": fingerprint(known),
        "sizes": list(sizes),
        "voices": voices,
        "multitok": __version__,
    }
    loop = SoundRun(Path(run), asked, options, steps=STEPS, show=show)
    loop.open(resume=resume)
    folder, report = loop.folder.path, loop.folder.quarantine
    pool = SoundPool.open(items, folder / "sound", SAMPLE_RATE_HZ, report=report)
    mixed = None if others is None else SoundPool.open(others, folder / "noise", SAMPLE_RATE_HZ, report=report)
    learned = student_data(
        pool, known, folder / "targets", dim=shape.out_dim, sizes=sizes, voice_of=_voice_of(voices),
        known={key: asked[key] for key in ("data", "teacher", "voices")}, seed=options.seed,
    )  # fmt: skip
    mel, batch = log_mel(shape.in_dim).mel, options.batch or BATCH
    clips = Clips(learned, mel, mixed, clip_frames=CLIP_FRAMES, batch=batch, seed=options.seed)
    device = choose_device(options.device)
    autocast = options.precision == "bf16" or (options.precision == "auto" and takes_bf16(device))

    def make(steps: int) -> StudentTrainer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            model = Student(shape, tuple(sizes)).to(device)
        rate = options.learning_rate or LEARNING_RATE
        return StudentTrainer(model, clips.draw, steps=steps, learning_rate=rate, autocast=autocast)

    held_out: dict[str, float] = {}
    measured_on = clips.held_out(HELD_OUT_CLIPS if options.held_out is None else options.held_out)

    def measure(trainer: StudentTrainer) -> dict[str, float]:
        held_out.update({} if measured_on is None else trainer.measure(measured_on))
        return dict(held_out)

    trainer = loop.train(make, measure)
    front_end = _frozen(trainer, clips.draw)
    tokenizer = train_semantic(
        _some(pool), front_end, codebook_sizes=sizes, codebook_size=codebook_size, seed=options.seed, name=name
    )
    how = f"{machine(device)}, nets in {'bf16' if autocast else 'fp32'}"
    return StudentResult(
        tokenizer, _card(loop, trainer, pool, held_out, tokenizer, command, how), trainer.step_index, held_out
    )


def _items(data: Sequence[str | os.PathLike[str]] | Items) -> Items:
    return data if not isinstance(data, Sequence) else FileItems([Path(each) for each in data], Modality.AUDIO)


def _teacher(name_or_path: str | os.PathLike[str]) -> AudioSemantic:
    found = load(name_or_path)
    if not isinstance(found, AudioSemantic):
        raise CheckpointError(f"{name_or_path} is of kind {found.spec.kind!r}: a teacher is of audio-semantic")
    return found


def _voice_of(voices: Voices) -> Callable[[str], str]:
    if voices == "folder":
        return lambda name: PurePath(name).parent.as_posix()
    return (lambda name: name) if voices == "file" else lambda name: "all"


def _frozen(trainer: StudentTrainer, draw: Callable[[int], Batch]) -> CausalNetFrontEnd:
    # Clips of steps that were never trained on.
    typical = [draw(trainer.steps + k).rows for k in range(CALIBRATION_BATCHES)]
    net = freeze(trainer.averaged.net.cpu(), typical)
    return CausalNetFrontEnd(config=net.config.to_json(), tensors=net.tensors())


def _some(pool: SoundPool) -> list[Waveform]:
    count = len(pool.names)
    chosen = range(0, count, -(-count // CODEBOOK_FILES))
    return [Waveform(pool.middle(number, pool.num_samples)[None], SAMPLE_RATE_HZ) for number in chosen]


def _card(
    loop: SoundRun,
    trainer: StudentTrainer,
    pool: SoundPool,
    held_out: Mapping[str, float],
    tokenizer: AudioSemantic,
    command: str,
    how: str,
) -> str:
    run = loop.folder.read_run()
    lost = loop.folder.num_quarantined()
    losses = ", ".join(f"{name} {value:.4f}" for name, value in held_out.items())
    quality = f"Losses on held-out speech, of the trained floats: {losses}. " if losses else "Nothing was held out. "
    ahead = 0.0 if tokenizer.lookahead_s is None else 1000 * tokenizer.lookahead_s
    lines = [
        "# Speech units by a streaming student",
        "",
        f"A unit for each 20 ms, known {ahead:g} ms after their end.",
        "",
        "## Data",
        "",
        f"Files of speech: {len(pool.names):,}, {pool.num_samples / SAMPLE_RATE_HZ / 60:.1f} minutes; not readable: "
        f"{lost:,}. Add where they come from.",
        "",
        "## Licence",
        "",
        "Add the licences of the data and of the teacher.",
        "",
        "## Training",
        "",
        *([f"`{command}`", ""] if command else []),
        f"Teacher {run['teacher'][:12]}. {trainer.step_index:,} steps of {run['steps']:,}, seed "
        f"{run['options']['seed']}. {loop.seconds / 60:.1f} minutes on {how}. multitok {run['multitok']}, torch "
        f"{torch.__version__}.",
        "",
        "## Quality",
        "",
        f"{quality}Measure units by `multitok eval audio` on speech with phone labels.",
        "",
    ]
    return "\n".join(lines)
