"""The card of a trained codec, from what its run recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multitok.tokenizers.audio_codec import AudioCodec


def card_of(
    run: Mapping[str, Any],
    tokenizer: AudioCodec,
    *,
    steps: int,
    names: Sequence[str],
    minutes_of_sound: float,
    lost: int,
    held_out: int,
    mel_distance_db: Mapping[int, float],
    command: str,
    seconds: float,
    how: str,
) -> str:
    """A checkpoint's card.

    Args:
        run: run.json.
        tokenizer: What was made.
        steps: How many were done.
        names: Of the files trained on.
        minutes_of_sound: Their length.
        lost: Files that could not be read.
        held_out: Files measured on.
        mel_distance_db: By number of codebooks; empty where nothing was held out.
        command: The command line, "" where there was none.
        seconds: All time, over all resumptions.
        how: Processor or GPU, and precision.

    Returns:
        Markdown; whoever knows them adds data's origin and licence.
    """
    preset, options = run["preset"], run["options"]
    begun = [f"started from {run['start_from']}"] if run["start_from"] else []
    begun += [f"its decoder started from the vocoder of {run['vocoder']}"] if run["vocoder"] else []
    begun += [f"the first codebook learnt the features of {run['semantic']}"] if run["semantic"] else []
    started = "".join(f"; {each}" for each in begun)
    lines = [
        f"# Codec, {tokenizer.spec.num_codebooks} codebooks at {float(tokenizer.frame_rate):g} Hz",
        "",
        "## Data",
        "",
        f"{len(names):,} sound files, {minutes_of_sound:.1f} minutes; {lost:,} could not be read, {held_out} others "
        "were held out to measure on. Add where they come from.",
        "",
        "## Licence",
        "",
        "Add the licence of the data.",
        "",
        "## Training",
        "",
        *([f"`{command}`", ""] if command else []),
        f"{steps:,} steps of {run['steps']:,}, each of {options['batch'] or preset['batch']} clips of "
        f"{preset['clip_frames']} frames, seed {options['seed']}{started}. {seconds / 60:.1f} minutes on {how}. "
        f"multitok {run['multitok']}.",
        "",
        "## Quality",
        "",
    ]
    if not mel_distance_db:
        lines.append("Not measured: nothing was held out. Measure it by `multitok eval audio` on other files.")
    else:
        lines += ["| codebooks | kbit/s | mel distance, dB |", "|---|---|---|"]
        rates = tokenizer.codec.config.bitrate_bps
        lines += [f"| {k} | {rates(k) / 1000:.2f} | {value:.2f} |" for k, value in mel_distance_db.items()]
        lines += ["", "Means over the held-out files, of the exact form that is stored here."]
    lines += [
        "",
        "## Use",
        "",
        "`multitok.load(...)` with this folder, for sound like that of the data; `first_codebooks(k)` for a lower "
        f"bitrate. A code looks {1000 * tokenizer.encoder_lookahead_s:g} ms ahead, decoded sound waits for "
        f"{1000 * tokenizer.decoder_lookahead_s:g} ms of codes.",
        "",
    ]
    return "\n".join(lines)
