"""Quality of every shipped image, video and volume tokenizer: `python benchmarks/vision.py [--data DIR]`

DIR is what examples/training/fetch_images.sh, fetch_videos.sh and fetch_volumes.sh made: measured are the pictures,
clips and volumes there that no shipped tokenizer was trained on. Default: the environment variable MULTITOK_HELDOUT;
without either, the few items of examples/data. What each figure means: docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from machine import describe

import multitok
from multitok.checkpoint import shipped_checkpoints
from multitok.frontend import media
from multitok.metrics import PEERS, Evaluation, Evaluator, tables
from multitok.protocol import Modality

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = {Modality.IMAGE: "photos", Modality.VIDEO: "video", Modality.VOLUME: "volumes"}
# Made for occupancy grids, not for scans: its card has its figures.
LEFT_OUT = ("voxels-8",)


def held_out(modality: Modality, folder: Path) -> Mapping[str, Any]:
    """The items of a fetched folder that nothing was trained on."""
    sys.path.insert(0, str(ROOT / "examples" / "training"))
    import patch_data

    read = {
        Modality.IMAGE: patch_data.heldout_photos,
        Modality.VIDEO: patch_data.heldout_clips,
        Modality.VOLUME: patch_data.heldout_volumes,
    }[modality]
    return read(folder)


def samples(modality: Modality) -> Mapping[str, Any]:
    """The items of examples/data."""
    paths = sorted((ROOT / "examples" / "data" / SAMPLES[modality]).iterdir())
    return {path.stem: media.read(path, modality=modality) for path in paths}


def measured(names: list[str], items: Mapping[str, Any]) -> list[Evaluation]:
    """All tokenizers of one modality; the known codecs run once for each item."""
    evaluators = [Evaluator(multitok.load(name), name=name, runs=0) for name in names]
    for key, raw in items.items():
        known: dict[tuple[float, float], Any] = {}
        for evaluator in evaluators:
            span = evaluator.value_range(raw)
            known[span] = known.get(span) or evaluator.peers(raw)
            failure = evaluator.add(key, raw, peers=known[span])
            assert failure is None, failure
    return [evaluator.result() for evaluator in evaluators]


def print_evaluation(evaluation: Evaluation) -> None:
    """The means of all levels, the items at the last, the use of the codebooks."""
    header, rows = tables.quality_rows(evaluation)
    last = str(evaluation.mean[-1].num_codebooks)
    items = [row for row in rows[: -len(evaluation.mean)] if row[1] == last]
    means = [[f"**{row[0]}**", *row[1:]] for row in rows[-len(evaluation.mean) :]]
    print(f"### {evaluation.tokenizer}\n\n{tables.markdown(header, means + items)}\n")
    use = [
        f"{one.usage:.0%} of {one.codebook_size:,}, perplexity {one.perplexity:,.0f}, {one.entropy_bits:.2f} bits"
        for one in evaluation.codebooks
    ]
    print(f"Use of the codebooks: {'; '.join(use)}.\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("MULTITOK_HELDOUT"))
    parser.add_argument("--modality", choices=[modality.value for modality in PEERS], action="append")
    arguments = parser.parse_args()
    wanted = [Modality(name) for name in arguments.modality or [modality.value for modality in PEERS]]
    what = "held-out items, see examples/training/patch_data.py" if arguments.data else "items of examples/data"
    print(f"{describe()}; {what}. A known codec's column: PSNR and SSIM of its best file in the row's nominal rate.\n")
    for modality in wanted:
        names = [name for name in shipped_checkpoints() if name not in LEFT_OUT]
        names = [name for name in names if multitok.load(name).spec.modality is modality]
        items = held_out(modality, Path(arguments.data)) if arguments.data else samples(modality)
        for evaluation in measured(names, items):
            print_evaluation(evaluation)


if __name__ == "__main__":
    main()
