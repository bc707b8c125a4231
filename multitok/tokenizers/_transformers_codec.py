"""Audio codecs whose networks `transformers` has: folders as its `save_pretrained` writes them.

The network is transformers' own, so codes are those of transformers for one clip; this package reads the weights,
compares every key and shape, and keeps the rules of `multitok.protocol`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from multitok.errors import CheckpointError, MissingExtraError
from multitok.protocol import Json
from multitok.tokenizers._audio_network import AudioNetwork

if TYPE_CHECKING:
    from types import ModuleType

# Of a published configuration: who wrote it and how, not what the network is.
INCIDENTAL = re.compile(r"_.*|architectures|transformers_version|torch_dtype|dtype")
# The two names of weight normalisation, as older versions of torch stored it.
WEIGHT_NORM = ((re.compile(r"\.weight_g$"), ".parametrizations.weight.original0"),
               (re.compile(r"\.weight_v$"), ".parametrizations.weight.original1"))  # fmt: skip
# What only training reads of a codebook.
STATISTICS = re.compile(r".*\.codebook\.(inited|initialized|cluster_size|embed_avg)")


class TransformersCodec(AudioNetwork):
    """Sound <-> codes [K, F] by a network of transformers; the arguments are those of `AudioNetwork`."""

    # "EncodecModel", with "EncodecConfig" beside it; and config.json's "model_type".
    model_name: ClassVar[str]
    model_type: ClassVar[str]

    @classmethod
    def checked_config(cls, data: Mapping[str, Any], where: str) -> dict[str, Json]:
        """Everything but who wrote it."""
        found = data.get("model_type")
        if found != cls.model_type:
            raise CheckpointError(
                f"{where}: config.json says model_type {found!r}, {cls.kind!r} reads {cls.model_type!r} as "
                "transformers saves it: give the kind that belongs to the folder, or convert it with transformers"
            )
        return {key: value for key, value in data.items() if not INCIDENTAL.fullmatch(key)}

    @classmethod
    def make_module(cls, config: Mapping[str, Any], where: str) -> Any:
        """The network, with random weights; torch's random numbers go on as if nothing had been drawn."""
        import torch

        transformers = _transformers(cls.kind, cls.model_name)
        model, configuration = getattr(transformers, cls.model_name), cls.model_name.replace("Model", "Config")
        try:
            with torch.random.fork_rng(devices=[]):
                return model(getattr(transformers, configuration).from_dict(dict(config))).float()
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
            raise CheckpointError(f"{where}: config.json describes no {cls.model_name} ({reason})") from error

    @classmethod
    def published_key(cls, key: str) -> str:
        """The name that the newer weight normalisation gives."""
        for old, new in WEIGHT_NORM:
            key = old.sub(new, key)
        return key

    @classmethod
    def is_spare(cls, key: str) -> bool:
        """Whether it is a statistic of a codebook that only training reads."""
        return STATISTICS.fullmatch(key) is not None


def _transformers(kind: str, model_name: str) -> ModuleType:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"kind {kind!r} needs 'transformers': pip install 'multitok[hf]'", name="transformers"
        ) from error
    if not hasattr(transformers, model_name):
        raise MissingExtraError(
            f"kind {kind!r} needs {model_name}, which transformers {transformers.__version__} has not: "
            "pip install --upgrade 'multitok[hf]'",
            name="transformers",
        )
    return transformers
