"""Features of speech encoders in transformers: HuBERT, WavLM, wav2vec 2.0, w2v-BERT 2.0, from a local folder.

A window goes through transformers' own model alone, on one thread, in float32: its hidden states are those that
`output_hidden_states=True` gives for these samples. These encoders look at all they are given (attention, and in some
a norm over time), so what a window gives depends on where the window lies; see `_semantic_windows.py`. The numbers are
torch's: another version or machine may differ in the last bits, and seldom in a unit.

Needs the extra `hf`. Shape letters: W samples of a window, F frames, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CheckpointError, MissingExtraError, SpecError
from multitok.protocol import Json
from multitok.tokenizers._semantic_windows import FRAME_LENGTH, KEPT_S, SAMPLE_RATE_HZ, WINDOW_S, WindowedFrontEnd

WAVE_MODELS = ("hubert", "wav2vec2", "wavlm")
FILTER_MODELS = ("wav2vec2-bert",)
# Frames of filter-bank energies of 25 ms, 10 ms apart, two joined: the samples beyond two hops a frame.
FILTER_EXTRA_SAMPLES = 240
NORMALISE_EPSILON = 1e-7


class TransformersFrontEnd(WindowedFrontEnd):
    """Hidden states of a speech encoder of transformers.

    Args:
        model: The model's configuration, as `config.json` has it.
        layer: Which of `hidden_states`: 0 is what enters the first layer, i what the i-th gives.
        normalise: Bring each window of samples to mean 0 and variance 1.
        tensors: The model's weights by its own names; any floating point, run in float32.
        window_s: As for `WindowedFrontEnd`.
        kept_s: As for `WindowedFrontEnd`.

    Raises:
        SpecError: Another model, one without a frame for each 20 ms, or without this layer; weights that do not fit.
        MissingExtraError: transformers is not installed.
    """

    def __init__(
        self,
        *,
        model: Mapping[str, Any],
        layer: int,
        normalise: bool,
        tensors: Mapping[str, NDArray[Any]],
        window_s: float = WINDOW_S,
        kept_s: float = KEPT_S,
    ) -> None:
        super().__init__(window_s, kept_s, extra_samples=_extra_samples(model))
        if not 0 <= layer <= model["num_hidden_layers"]:
            raise SpecError(f"layer={layer}: this model has the layers 0 to {model['num_hidden_layers']}")
        self._model_config, self._layer, self._normalise = dict(model), layer, normalise
        self._held = dict(tensors)
        self._model = _make_model(model, tensors)

    @classmethod
    def read(cls, folder: Path, layer: int, *, window_s: float = WINDOW_S, kept_s: float = KEPT_S) -> Any:
        """The front end of a model in a local folder, as `save_pretrained` writes it.

        Args:
            folder: Holds `config.json`, the weights, and perhaps `preprocessor_config.json`.
            layer: As for the class.
            window_s: As for the class.
            kept_s: As for the class.

        Raises:
            CheckpointError: The folder cannot be read, or holds another model.
            SpecError: As for the class.
            MissingExtraError: transformers is not installed.
        """
        transformers = _transformers()
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder} holds no config.json: give a folder that save_pretrained has written")
        try:
            loaded = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
            preprocessor = transformers.AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        except OSError:
            # Without a preprocessor_config.json samples are taken as they are.
            preprocessor = None
        except ValueError as error:
            raise CheckpointError(f"{folder}: transformers cannot read this model: {error}") from error
        tensors = {key: value.numpy() for key, value in loaded.state_dict().items()}
        return cls(
            model=loaded.config.to_diff_dict() | {"model_type": loaded.config.model_type}
            | {"num_hidden_layers": loaded.config.num_hidden_layers},
            layer=layer,
            normalise=bool(getattr(preprocessor, "do_normalize", False)),
            tensors=tensors,
            window_s=window_s,
            kept_s=kept_s,
        )  # fmt: skip

    @property
    def dim(self) -> int:
        """Channels of the encoder."""
        return int(self._model.config.hidden_size)

    def window_features(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Hidden states [F, D] of one window."""
        import torch

        from multitok.nets.one_thread import one_thread

        with one_thread():
            inputs = self._inputs(samples)
            states = self._model(torch.from_numpy(inputs)[None], output_hidden_states=True).hidden_states
            features: NDArray[np.float32] = states[self._layer][0].numpy()
        return features

    def get_config(self) -> dict[str, Json]:
        """The constructor's arguments but the tensors."""
        return {
            "model": self._model_config, "layer": self._layer, "normalise": self._normalise,
            "window_s": self.window_s, "kept_s": self.kept_s,
        }  # fmt: skip

    def get_tensors(self) -> dict[str, NDArray[Any]]:
        """The model's weights."""
        return dict(self._held)

    def _inputs(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._model.config.model_type in FILTER_MODELS:
            extractor = _transformers().SeamlessM4TFeatureExtractor()
            found = extractor(samples, sampling_rate=SAMPLE_RATE_HZ, padding=False, return_tensors="np")
            features: NDArray[np.float32] = found["input_features"][0]
            return features
        if not self._normalise:
            plain: NDArray[np.float32] = np.array(samples)
            return plain
        normal: NDArray[np.float32] = (samples - samples.mean()) / np.sqrt(
            samples.var() + np.float32(NORMALISE_EPSILON)
        )
        return normal


def _extra_samples(model: Mapping[str, Any]) -> int:
    kind = model.get("model_type")
    if kind in FILTER_MODELS:
        return FILTER_EXTRA_SAMPLES
    if kind not in WAVE_MODELS:
        raise SpecError(
            f"a model of type {kind!r} has no known features: known are {', '.join((*WAVE_MODELS, *FILTER_MODELS))}"
        )
    kernels = model.get("conv_kernel", (10, 3, 3, 3, 3, 2, 2))
    strides = model.get("conv_stride", (5, 2, 2, 2, 2, 2, 2))
    if math.prod(strides) != FRAME_LENGTH:
        raise SpecError(f"conv_stride={list(strides)}: a frame for each {FRAME_LENGTH} samples (20 ms) is needed")
    reach = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        reach = (reach - 1) * stride + kernel
    return int(reach - FRAME_LENGTH)


def _make_model(model: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Any:
    import torch

    transformers = _transformers()
    config = transformers.AutoConfig.for_model(**dict(model))
    made = transformers.AutoModel.from_config(config, attn_implementation="eager").float().eval()
    state = {key: torch.from_numpy(np.array(value)) for key, value in tensors.items()}
    try:
        made.load_state_dict(state)
    except RuntimeError as error:
        raise SpecError(f"weights that do not fit {model.get('model_type')!r}: {error}") from error
    return made


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("this front end needs 'transformers': pip install 'multitok[hf]'") from error
    return transformers
