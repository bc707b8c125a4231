"""Train a shipped patch tokenizer again: `python train_patches.py image DATA OUT`.

DATA is what fetch_images.sh, fetch_videos.sh or fetch_volumes.sh made; OUT is the new checkpoint folder. The seed
fixes the sample and the codebooks. Quality is measured on data that was not trained on, PSNR in float on the raw
values that decode returns, and goes onto the checkpoint's card.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import patch_data
from numpy.typing import NDArray
from PIL import Image

import multitok
from multitok.quantize import perplexity
from multitok.tokenizers._patch_rvq import PatchRvq
from multitok.train.patches import train_patch_tokenizer

SETTINGS: dict[str, dict[str, Any]] = {
    "image": {"patch": (8, 8), "latent_dim": 32, "max_patches": 600_000},
    "video": {"patch": (4, 8, 8), "latent_dim": 64, "max_patches": 300_000},
    "volume": {"patch": (4, 4, 4), "latent_dim": 24, "max_patches": 300_000, "window": (0.0, 1.0)},
}
CODEBOOK_SIZES = (1024, 1024, 1024, 1024)
# Voxels at or below this are the air around a head: most of a volume, and easy.
AIR = 0.05


def main() -> None:
    """Train, measure, write the checkpoint."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modality", choices=sorted(SETTINGS))
    parser.add_argument("data", type=Path, help="folder that the fetch script made")
    parser.add_argument("out", type=Path, help="checkpoint folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=25, help="k-means passes for each codebook")
    arguments = parser.parse_args()
    modality, folder = arguments.modality, arguments.data

    raws = {
        "image": lambda: patch_data.photos(folder),
        "video": lambda: patch_data.clips(folder, arguments.seed),
        "volume": lambda: patch_data.volumes(folder),
    }[modality]()
    start = time.perf_counter()
    tokenizer = train_patch_tokenizer(
        modality,
        raws,
        codebook_sizes=CODEBOOK_SIZES,
        seed=arguments.seed,
        iterations=arguments.iterations,
        **SETTINGS[modality],
    )
    print(f"trained in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    heldout = {
        "image": patch_data.heldout_photos,
        "video": patch_data.heldout_clips,
        "volume": patch_data.heldout_volumes,
    }[modality](folder)
    card = (Path(__file__).parent / "cards" / f"{modality}.md").read_text(encoding="utf-8")
    card = card.replace("{{seed}}", str(arguments.seed)).replace("{{iterations}}", str(arguments.iterations))
    card = card.replace("{{quality}}", quality_table(tokenizer, heldout))
    print(multitok.save(tokenizer, arguments.out, card=card))


def quality_table(tokenizer: PatchRvq, heldout: Mapping[str, NDArray[Any]]) -> str:
    """Markdown: PSNR of each held-out item for 1 to K codebooks, JPEG at no more bits for images, use of the codes."""
    peak = 255.0 if tokenizer.raw_dtype is np.uint8 else 1.0
    per_raw = 1 / np.prod(tokenizer.spec.stride)
    counts = range(1, tokenizer.spec.num_codebooks + 1)
    cut = [first_codebooks(tokenizer, count) for count in counts]
    bits = [float(np.log2(one.spec.codebook_sizes).sum() * per_raw) for one in cut]
    rows = {}
    for name, raw in heldout.items():
        target = np.clip(raw, 0, peak)  # a volume's window clips, which is no error of the codes
        decoded = [one.decode(one.encode(raw)) for one in cut]
        rows[name] = [psnr(target, back, peak) for back in decoded]
        if tokenizer.spec.modality == multitok.Modality.VOLUME:
            inside = target > AIR
            rows[f"{name}, above {AIR}"] = [psnr(target[inside], back[inside], peak) for back in decoded]
        if tokenizer.spec.modality == multitok.Modality.IMAGE:
            rows[name] += [jpeg_psnr(raw, raw.shape[0] * raw.shape[1] * rate) for rate in bits]
    head = [f"{count} codebook{'s' * (count > 1)} ({rate:.3f})" for count, rate in zip(counts, bits, strict=True)]
    if tokenizer.spec.modality == multitok.Modality.IMAGE:
        head += [f"JPEG ({rate:.3f})" for rate in bits]
    if len(heldout) > 1:
        rows["**mean**"] = np.mean(list(rows.values()), axis=0).tolist()
    lines = [f"| held out | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(_decibel(value) for value in values)} |" for name, values in rows.items()]
    codes = np.concatenate([tokenizer.encode(raw).values.reshape(len(counts), -1) for raw in heldout.values()], axis=1)
    spread = [f"{perplexity(codes[k], size):.0f}" for k, size in enumerate(tokenizer.spec.codebook_sizes)]
    return "\n".join(
        [*lines, "", f"Perplexity of the codes on the held-out data, codebook by codebook: {', '.join(spread)}."]
    )


def first_codebooks(tokenizer: PatchRvq, count: int) -> PatchRvq:
    """The same tokenizer with only its first codebooks."""
    sizes = tokenizer.spec.codebook_sizes[:count]
    tensors = tokenizer.get_tensors()
    tensors["codebooks"] = tensors["codebooks"][: sum(sizes)]
    return type(tokenizer).from_state({**tokenizer.get_config(), "codebook_sizes": list(sizes)}, tensors)


def psnr(left: NDArray[Any], right: NDArray[Any], peak: float) -> float:
    """Peak signal-to-noise ratio in dB, in float64, so that differences of uint8 cannot wrap around."""
    error = np.square(left.astype(np.float64) - right.astype(np.float64)).mean()
    return float(10 * np.log10(peak**2 / error))


def jpeg_psnr(pixels: NDArray[np.uint8], bits: float) -> float:
    """PSNR of the best JPEG that takes no more bits; NaN where none is small enough."""
    best = float("nan")
    for quality in range(1, 96):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() * 8 > bits:
            break
        best = psnr(pixels, np.asarray(Image.open(file)), 255.0)
    return best


def _decibel(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"


if __name__ == "__main__":
    main()
