"""Train an image, video or volume tokenizer: from files to a tokenizer, live, resumable, on one process or several.

    result = train_autoencoder(["photos"], "runs/mine", preset="image-f8", options=TrainingOptions(minutes=30))
    multitok.save(result.tokenizer, "my-image", card=result.card)

The same data, preset, options and number of ranks give the same tokenizer to the bit on the same kind of machine with
the same number of threads, whether the run was killed and resumed or not. This module imports torch when called.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from multitok.errors import SpecError
from multitok.train.items import FileItems, Items
from multitok.train.options import TrainingOptions
from multitok.train.presets import Preset
from multitok.train.presets import preset as preset_of

if TYPE_CHECKING:
    from multitok.protocol import Tokenizer


class TrainingResult(NamedTuple):
    """What a training made.

    Args:
        tokenizer: Ready to use, and to `multitok.save`.
        card: Markdown for its checkpoint: data, command, seed, time, measured quality.
        steps: How many were done.
        psnr: dB on held-out items by number of codebooks, from 1; empty where nothing was held out.
    """

    tokenizer: Tokenizer[Any]
    card: str
    steps: int
    psnr: list[float]


def train_autoencoder(
    data: Sequence[str | os.PathLike[str]] | Items,
    run: str | os.PathLike[str],
    *,
    preset: str | Preset = "image-f8",
    options: TrainingOptions | None = None,
    held_out: Sequence[str | os.PathLike[str]] | Items | None = None,
    start_from: str | os.PathLike[str] | None = None,
    resume: bool = False,
    name: str | None = None,
    command: str = "",
    show: bool | None = None,
) -> TrainingResult | None:
    """Train an autoencoder on pictures, clips or volumes.

    Under torchrun all ranks call this alike, and share the run folder; each takes `batch` crops a step.

    Args:
        data: Files and folders, or `Items` (`multitok.prepare.training_items.open_items` for tars and tables).
        run: Folder for the log, the states and the pictures of this run.
        preset: A name in `PRESETS`, or a `Preset`.
        options: Seed, length and the like.
        held_out: What to measure on; None keeps a few items of `data` out of training.
        start_from: A checkpoint folder, a shipped checkpoint's name or a run folder to start from; its shape is taken.
        resume: Go on with the run in the folder; everything else has to be as it was.
        name: Of the tokenizer inside a vocabulary; None takes the modality's.
        command: What the card gives as the command.
        show: As for `Watch`.

    Returns:
        The tokenizer and its card; None on ranks other than the first.

    Raises:
        InputError: Nothing can be read.
        JobError: The run folder is taken, or is not that of this run; or the training diverged.
        CheckpointError: What to start from or to resume cannot be read.
        SpecError: An option or a preset that cannot be.
        MissingExtraError: A format, or TensorBoard, needs a package that is not installed.
    """
    from multitok.train.autoencoder_loop import Training
    from multitok.train.devices import choose_device
    from multitok.train.ranks import joined_ranks

    began = time.monotonic()
    options = options or TrainingOptions()
    chosen = preset_of(preset) if isinstance(preset, str) else preset
    items, measured = _items(data, chosen), None if held_out is None else _items(held_out, chosen)
    label = preset if isinstance(preset, str) else "of your own"
    device = choose_device(options.device)
    with joined_ranks(device) as ranks:
        training = Training(
            items, measured, Path(run), chosen, options, device=device, ranks=ranks, label=label, command=command,
            began=began, show=show,
        )  # fmt: skip
        return training.run(resume=resume, start_from=None if start_from is None else os.fspath(start_from), name=name)


def _items(data: Sequence[str | os.PathLike[str]] | Items, preset: Preset) -> Items:
    if isinstance(data, (str, os.PathLike)):
        raise SpecError(f"data={data!r}: give a list of files and folders, such as [{os.fspath(data)!r}]")
    if isinstance(data, Sequence):
        return FileItems([Path(each) for each in data], preset.modality)
    return data
