"""Trained autoencoders to start another training from: checkpoints and run folders. This module imports torch."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
import safetensors.torch
from safetensors import SafetensorError

from multitok.checkpoint import load
from multitok.errors import CheckpointError, SpecError
from multitok.nets.autoencoder import VqAutoencoder
from multitok.nets.autoencoder_config import AutoencoderConfig
from multitok.nets.freeze import thaw
from multitok.tokenizers._nd_vq import NdVq
from multitok.train.presets import Preset
from multitok.train.run_folder import TRAINED


def model_from(name_or_path: str, preset: Preset) -> VqAutoencoder:
    """A trainable autoencoder that starts where a trained one is.

    Args:
        name_or_path: A run folder of a finished run (floats), a checkpoint folder or a shipped checkpoint (integers).
        preset: Its modality has to be the checkpoint's, its crop whole patches of it.

    Returns:
        A new model.

    Raises:
        CheckpointError: It cannot be read, or holds something else.
        SpecError: It does not go with the preset.
    """
    trained = Path(name_or_path) / TRAINED
    if trained.is_file():
        model = _from_floats(trained)
    else:
        tokenizer = load(name_or_path)
        if not isinstance(tokenizer, NdVq):
            raise CheckpointError(
                f"{name_or_path} is of kind {tokenizer.spec.kind!r}: training can start from image-vq, video-vq and "
                "volume-vq, and from the run folder of a finished training"
            )
        if tokenizer.spec.modality != preset.modality:
            raise SpecError(f"{name_or_path} is for {tokenizer.spec.modality}: choose a preset of that modality")
        model = thaw(tokenizer.net)
    patch = model.config.patch
    if any(side % step for side, step in zip(preset.crop, patch, strict=True)):
        raise SpecError(f"{name_or_path} has patches of {patch}, the preset's crops are {preset.crop}: choose another")
    if model.config.channels != preset.autoencoder.channels:
        raise SpecError(
            f"{name_or_path} has {model.config.channels} channels, "
            f"a raw {preset.modality} has {preset.autoencoder.channels}"
        )
    return model


def _from_floats(path: Path) -> VqAutoencoder:
    try:
        with safetensors.safe_open(path, "pt") as file:
            shape = json.loads(file.metadata()["autoencoder"])
        model = VqAutoencoder(AutoencoderConfig(**shape))
        model.load_state_dict(safetensors.torch.load_file(path))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): copy the run folder again") from error
    return model
