"""Tiny presets for the tests of training, and runs of them in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multitok.nets.autoencoder_config import AutoencoderConfig
from multitok.protocol import Modality
from multitok.train.options import TrainingOptions
from multitok.train.presets import Preset

SHAPE: dict[str, Any] = {
    "codebook_sizes": (8, 8),
    "tables": 2,
    "fine_width": 8,
    "coarse_width": 8,
    "context_width": 8,
    "encoder_blocks": (1, 1),
    "lookahead": 2,
    "decoder_blocks": (1, 1),
}
LENGTH: dict[str, Any] = {
    "trains": "everything",
    "steps": 6,
    "batch": 2,
    "start_crops": 12,
    "context_steps": 2,
    "kmeans_iterations": 2,
}
TINY: dict[Modality, Preset] = {
    Modality.IMAGE: Preset(
        modality=Modality.IMAGE,
        autoencoder=AutoencoderConfig(patch=(1, 4, 4), latent_dim=6, **SHAPE),
        crop=(1, 16, 16),
        short_sides=(24, 48),
        **LENGTH,
    ),
    Modality.VIDEO: Preset(
        modality=Modality.VIDEO,
        autoencoder=AutoencoderConfig(patch=(2, 4, 4), latent_dim=6, taps=(-1, 0), **SHAPE),
        crop=(4, 16, 16),
        short_sides=(32,),
        **LENGTH,
    ),
    Modality.VOLUME: Preset(
        modality=Modality.VOLUME,
        autoencoder=AutoencoderConfig(patch=(2, 4, 4), channels=1, latent_dim=6, taps=(-1, 0, 1), **SHAPE),
        crop=(4, 16, 16),
        **LENGTH,
    ),
}


def options(**chosen: Any) -> TrainingOptions:
    """Options that fit tests: nothing but the run folder is written, nothing is read ahead."""
    quick = {"precision": "fp32", "device": "cpu", "workers": 0, "tensorboard": "off", "eval_every": 3, "save_every": 2}
    return TrainingOptions(**{**quick, **chosen})


def write_pictures(folder: Path, count: int, size: tuple[int, int] = (40, 32)) -> Path:
    """Smooth random pictures, a.png, b.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(count)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 4, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{chr(97 + index)}.png")
    return folder


def main(data: str, run: str, die_at: str, resume: str) -> None:
    """Train in this process; at a step, die as by `kill -9`."""
    import torch

    from multitok.train.autoencoder import AutoencoderTrainer
    from multitok.train.train_autoencoder import train_autoencoder

    torch.set_num_threads(1)
    step = AutoencoderTrainer.step

    def deadly(self: AutoencoderTrainer, levels: torch.Tensor) -> Any:
        if self.step_index == int(die_at):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, levels)

    AutoencoderTrainer.step = deadly  # type: ignore[method-assign]
    result = train_autoencoder(
        [data], run, preset=TINY[Modality.IMAGE], options=options(workers=2), resume=resume == "resume"
    )
    if result is not None:
        ids = result.tokenizer.encode(np.zeros((8, 8, 3), np.uint8)).values.tolist()
        print(json.dumps({"steps": result.steps, "ids": ids}))


if __name__ == "__main__":
    main(*sys.argv[1:])
