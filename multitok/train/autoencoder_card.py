"""From a finished training to a tokenizer and its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from multitok.nets.integer import IntegerAutoencoder
from multitok.protocol import Modality
from multitok.tokenizers._nd_vq import NdVq
from multitok.tokenizers.image_vq import ImageVq
from multitok.tokenizers.video_vq import VideoVq
from multitok.tokenizers.volume_vq import VolumeVq

if TYPE_CHECKING:
    from multitok.train.run_folder import RunFolder

# Rows of the table of quality against time.
_ROWS = 12
_CLASSES: dict[Modality, type[ImageVq] | type[VideoVq] | type[VolumeVq]] = {
    Modality.IMAGE: ImageVq,
    Modality.VIDEO: VideoVq,
    Modality.VOLUME: VolumeVq,
}


def tokenizer_of(net: IntegerAutoencoder, modality: Modality, name: str | None) -> NdVq:
    """The tokenizer that runs a frozen autoencoder.

    Args:
        net: Frozen.
        modality: Image, video or volume.
        name: Inside a vocabulary; None takes the modality's.
    """
    return _CLASSES[modality](net, name=name)


def card_of(
    run: Mapping[str, Any],
    folder: RunFolder,
    *,
    steps: int,
    psnr: Sequence[float],
    held_out: Sequence[str],
    separate: bool,
    label: str,
    command: str,
    seconds: float,
    machine: str,
) -> str:
    """A checkpoint's card, from what the run recorded.

    Args:
        run: run.json.
        folder: Its log is read.
        steps: How many were done.
        psnr: dB on held-out items by number of codebooks, of the integer form.
        held_out: Their names.
        separate: They are no part of the data.
        label: The preset's name.
        command: The command line, "" where there was none.
        seconds: All time from the call on, over all resumptions.
        machine: Processor or GPU.

    Returns:
        Markdown; whoever knows them adds data's origin and licence.
    """
    preset, options, data = run["preset"], run["options"], run["data"]
    shape = preset["autoencoder"]
    ranks = f" on each of {run['ranks']} ranks" if run["ranks"] > 1 else ""
    chosen = f" (chosen from {options['minutes']:g} minutes by this machine's speed)" if options["minutes"] else ""
    begun = f"; started from {run['start_from']}" if run["start_from"] else ""
    bits = _bits(shape)
    how_many = f"{data['items']:,} {preset['modality']} item{'s' if data['items'] > 1 else ''}"
    lost = folder.num_quarantined()
    left_out = f", {lost:,} of which could not be read" if lost else ""
    held = f"{len(held_out)} {'others' if separate else 'of them'}"
    lines = [
        f"# {preset['modality'].capitalize()} tokenizer, preset {label}",
        "",
        "## Data",
        "",
        f"{how_many}{left_out}; measured on {held}, which it was not trained on. Add where they come from."
        if held_out
        else f"{how_many}{left_out}; none was held out. Add where they come from.",
        "",
        "## Licence",
        "",
        "Add the licence of the data.",
        "",
        "## Training",
        "",
        *([f"`{command}`", ""] if command else []),
        f"{steps:,} steps of {run['steps']:,}{chosen}, each of {options['batch'] or preset['batch']} crops of "
        f"{' x '.join(map(str, preset['crop']))}{ranks}, seed {options['seed']}, nets in {run['precision']}{begun}. "
        f"Trained: {'the decoder, on the codes of the start' if preset['trains'] == 'decoder' else 'everything'}. "
        f"{seconds / 60:.1f} minutes on {machine}, start included. multitok {run['multitok']}, torch {run['torch']}.",
        "",
        f"Patches {' x '.join(map(str, shape['patch']))}, {shape['latent_dim']} latents, codebooks "
        f"{' + '.join(map(str, shape['codebook_sizes']))}, {shape['tables']} tables.",
        "",
        "## Quality",
        "",
    ]
    if not psnr:
        lines.append("Not measured: there was nothing held out. Measure it by `multitok eval` on other files.")
    else:
        unit = "voxel" if preset["modality"] == "volume" else "pixel"
        lines += [f"| codebooks | bits per {unit} | PSNR, dB |", "|---|---|---|"]
        rows = enumerate(zip(bits, psnr, strict=True), 1)
        lines += [f"| {n} | {rate:.4g} | {value:.2f} |" for n, (rate, value) in rows]
        mean = f"Means over held-out items, {len(held_out)} in all"
        lines += [
            "",
            f"{mean}, by the integers that the tokenizer runs. While it trained, on their middles:",
            "",
        ]
        lines += _curve(folder, len(bits))
    lines += ["", "## Use", "", "`multitok.load(...)` with this folder; for items like those of the data.", ""]
    return "\n".join(lines)


def _bits(shape: Mapping[str, Any]) -> list[float]:
    """Nominal bits per grid value with the first 1, 2, ... codebooks."""
    area, total, rates = 1, 0.0, []
    for side in shape["patch"]:
        area *= side
    for size in shape["codebook_sizes"]:
        total += (size - 1).bit_length()
        rates.append(total / area)
    return rates


def _curve(folder: RunFolder, num_codebooks: int) -> list[str]:
    measured = [line for line in folder.read_log() if "held_out_psnr" in line]
    chosen = sorted({round(i * (len(measured) - 1) / (_ROWS - 1)) for i in range(_ROWS)})
    every = ["1 codebook", f"all {num_codebooks}"] if num_codebooks > 1 else ["1 codebook"]
    rows = [f"| step | minutes | {' | '.join(f'{each}, dB' for each in every)} |", f"|{'---|' * (2 + len(every))}"]
    for line in (measured[index] for index in chosen):
        values = [line["held_out_psnr"][0], line["held_out_psnr"][-1]][: len(every)]
        shown = " | ".join(f"{value:.2f}" for value in values)
        rows.append(f"| {line['step']:,} | {line['seconds'] / 60:.1f} | {shown} |")
    return rows
