"""Kinds of tokenizers: a literal table, and the entry-point group `multitok.tokenizers` for plug-ins.

A kind names an ID format for ever. Changed output means a new kind, never a silent change; so a plug-in
cannot replace a kind, and two plug-ins cannot share one. Classes are imported when first asked for.
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from multitok.errors import MissingExtraError, RegistryError
from multitok.protocol import Tokenizer

ENTRY_POINT_GROUP = "multitok.tokenizers"

KINDS: dict[str, str] = {
    "text-bytes": "multitok.tokenizers.text_bytes:TextBytes",
    "text-bpe": "multitok.tokenizers.text_bpe:TextBpe",
    "image-patch": "multitok.tokenizers.image_patch:ImagePatch",
    "video-patch": "multitok.tokenizers.video_patch:VideoPatch",
    "volume-patch": "multitok.tokenizers.volume_patch:VolumePatch",
    "image-vq": "multitok.tokenizers.image_vq:ImageVq",
    "video-vq": "multitok.tokenizers.video_vq:VideoVq",
    "volume-vq": "multitok.tokenizers.volume_vq:VolumeVq",
    "audio-dmel": "multitok.tokenizers.audio_dmel:AudioDMel",
    "audio-mel-vq": "multitok.tokenizers.audio_mel_vq:AudioMelVq",
    "audio-semantic": "multitok.tokenizers.audio_semantic:AudioSemantic",
    "audio-codec": "multitok.tokenizers.audio_codec:AudioCodec",
    "series-bins": "multitok.tokenizers.series_bins:SeriesBins",
    "sequence-kmer": "multitok.tokenizers.sequence_kmer:SequenceKmer",
}

# Kinds that a tokenizer of another kind makes, `load("semantic-stream").merged()`: they can be saved like any other.
DERIVED: dict[str, str] = {
    "audio-units": "multitok.tokenizers.audio_units:AudioUnits",
}

# Kinds without a checkpoint of ours: they read a folder with the published weights, `load(folder, kind=...)`.
ADAPTERS: dict[str, str] = {
    "vqgan": "multitok.tokenizers.vqgan:Vqgan",
    "llamagen": "multitok.tokenizers.llamagen:LlamaGen",
    "chameleon": "multitok.tokenizers.chameleon:Chameleon",
    "open-magvit2": "multitok.tokenizers.open_magvit2:OpenMagvit2",
    "emu3": "multitok.tokenizers.emu3:Emu3",
    "emu3-image": "multitok.tokenizers.emu3:Emu3Image",
    "cosmos-image": "multitok.tokenizers.cosmos:CosmosImage",
    "cosmos-video": "multitok.tokenizers.cosmos:CosmosVideo",
    "titok": "multitok.tokenizers.titok:Titok",
    "encodec": "multitok.tokenizers.encodec:Encodec",
    "dac": "multitok.tokenizers.dac:Dac",
    "mimi": "multitok.tokenizers.mimi:Mimi",
    "xcodec2": "multitok.tokenizers.xcodec2:Xcodec2",
    "snac": "multitok.tokenizers.snac:Snac",
}

# Which extra brings a module that a tokenizer may fail to import.
EXTRAS: dict[str, str] = {"cupy": "cuda12", "ray": "ray", "av": "video", "transformers": "hf", "gigatoken": "fast"}


def built_in() -> dict[str, str]:
    """The kinds that come with this package, adapters after the others, and where each class is."""
    return KINDS | DERIVED | ADAPTERS


def kinds() -> dict[str, str]:
    """Every known kind and where its class is, as "module:Class"; plug-ins after the built-in ones.

    Raises:
        RegistryError: Two packages claim the same kind.
    """
    return built_in() | {entry.name: entry.value for entry in _plugins().values()}


def tokenizer_class(kind: str) -> type[Tokenizer[Any]]:
    """The class registered for `kind`.

    Raises:
        RegistryError: The kind is unknown (the message lists the known ones) or claimed twice.
        MissingExtraError: Its module needs a package that is not installed.
    """
    own, plugins = built_in(), _plugins()
    try:
        if kind in own:
            module, _, attribute = own[kind].partition(":")
            found: type[Tokenizer[Any]] = getattr(importlib.import_module(module), attribute)
        elif kind in plugins:
            found = plugins[kind].load()
        else:
            raise RegistryError(
                f"no tokenizer of kind {kind!r}; known are {', '.join(sorted(kinds()))}. "
                f"A package adds a kind by an entry point in the group {ENTRY_POINT_GROUP!r}"
            )
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        fix = f"multitok[{EXTRAS[package]}]" if package in EXTRAS else package
        raise MissingExtraError(f"kind {kind!r} needs {package!r}: pip install '{fix}'", name=error.name) from error
    return found


def _plugins() -> dict[str, EntryPoint]:
    own = built_in()
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        taken = own.get(entry.name) or (found[entry.name].value if entry.name in found else None)
        # One distribution seen twice on the path (an editable and an installed copy) is no conflict.
        if taken is not None and taken != entry.value:
            raise RegistryError(
                f"kind {entry.name!r} is registered by {taken!r} and by {entry.value!r}; "
                "a kind names one ID format: rename one of them or uninstall its package"
            )
        if entry.name not in own:
            found[entry.name] = entry
    return found
