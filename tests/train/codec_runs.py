"""A tiny preset for the tests of training codecs, and a run in a process of its own that dies at a step."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from multitok.train.codec_presets import CodecPreset
from multitok.train.options import TrainingOptions
from tests.nets.small_codec import small_config

TINY = CodecPreset(
    codec=small_config(),
    clip_frames=40,
    batch=2,
    steps=6,
    start_batches=3,
    level_weights=(1, 1, 1, 2),
    matrix_rate=0.01,
)


def options(**chosen: Any) -> TrainingOptions:
    """Options that fit tests."""
    quick = {
        "precision": "fp32",
        "device": "cpu",
        "tensorboard": "off",
        "eval_every": 3,
        "save_every": 2,
        "held_out": 1,
    }
    return TrainingOptions(**{**quick, **chosen})


def main(data: str, run: str, die_at: str, resume: str) -> None:
    """Train in this process; at a step, die as by `kill -9`."""
    import torch

    from multitok.train.codec import CodecTrainer
    from multitok.train.train_codec import train_codec

    torch.set_num_threads(1)
    step = CodecTrainer.step

    def deadly(self: CodecTrainer) -> Any:
        if self.step_index == int(die_at):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self)

    CodecTrainer.step = deadly  # type: ignore[method-assign]
    result = train_codec([data], run, preset=TINY, options=options(), resume=resume == "resume", show=False)
    tensors = {key: value.tobytes().hex() for key, value in sorted(result.tokenizer.get_tensors().items())}
    print(json.dumps({"steps": result.steps, "tensors": tensors}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent.parent))
    main(*sys.argv[1:])
