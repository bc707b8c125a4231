"""What this installation can do, and the fix for each missing thing."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np

from multitok import __version__
from multitok.checkpoint import load, shipped_checkpoints
from multitok.codebook import native
from multitok.errors import MultitokError
from multitok.nets import native as native_nets
from multitok.protocol import Json
from multitok.registry import built_in, kinds

State = Literal["ok", "absent", "broken"]

BASE = (
    "numpy", "torch", "torchaudio", "librosa", "einops", "safetensors", "pillow", "soundfile", "soxr",
    "tokenizers", "tiktoken", "pyarrow", "click", "rich",
)  # fmt: skip
IMPORT_NAMES = {"pillow": "PIL"}

# Extra -> (distributions any of which satisfies it, what it brings).
EXTRAS: dict[str, tuple[tuple[str, ...], str]] = {
    "cuda12": (("cupy-cuda12x",), "codebook search on NVIDIA GPUs, CUDA 12"),
    "cuda13": (("cupy-cuda13x",), "codebook search on NVIDIA GPUs, CUDA 13"),
    "eval": (("scikit-image",), "quality of tokenizers: multitok eval"),
    "fast": (("gigatoken",), "faster BPE for bulk text"),
    "hf": (("transformers",), "local Hugging Face model folders"),
    "playground": (("fastapi",), "the browser playground"),
    "ray": (("ray",), "prepare on many machines"),
    "video": (("av",), "mp4, mkv, webm, mov and avi files"),
}
# Native search path -> the processor features it needs, the fastest first.
NATIVE_PATHS = {
    "amx": {"amx_tile", "amx_bf16", "avx512_bf16", "avx512f"},
    "avx512-vnni": {"avx512_vnni", "avx512f"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx2": {"avx2", "fma"},
}
# Codebooks [V, D] by which the paths are shown: one for a matrix product, one for a tree.
EXAMPLE_CODEBOOKS = ((1024, 256), (16384, 4))
CPU_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `fix` is what to type, empty where nothing is wrong."""

    section: str
    name: str
    state: State
    value: str
    fix: str = ""

    @property
    def mark(self) -> str:
        """The state as one character."""
        return {"ok": "✓", "absent": "·", "broken": "✗"}[self.state]

    def to_json(self) -> dict[str, Json]:
        """The finding as JSON values."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at everything; imports the base packages, so it takes seconds."""
    return [*_machine(), *_packages(), *_codebook_search(), *_integer_nets(), *_extras(), *_checkpoints()]


def _machine() -> Iterator[Finding]:
    yield Finding("Machine", "multitok", "ok", __version__)
    yield Finding("Machine", "python", "ok", f"{platform.python_version()} ({sys.executable})")
    yield Finding("Machine", "system", "ok", f"{platform.system()} {platform.release()} {platform.machine()}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("Machine", "processor", "ok", f"{_cpu_model()}, {cores} cores usable")
    found = _cpu_flags() & set(CPU_FEATURES)
    yield Finding("Machine", "features", "ok", " ".join(f for f in CPU_FEATURES if f in found) or "none known")
    free = shutil.disk_usage(Path.cwd()).free
    yield Finding("Machine", "disk", "ok", f"{free / 2**30:.1f} GiB free here")


def _packages() -> Iterator[Finding]:
    for package in BASE:
        try:
            found = version(package)
        except PackageNotFoundError:
            yield Finding("Packages", package, "broken", "not installed", f"pip install {package}")
            continue
        try:
            importlib.import_module(IMPORT_NAMES.get(package, package))
        except Exception as error:  # a broken binary can raise anything; the report has to go on
            reason = str(error).strip().partition("\n")[0]
            yield Finding("Packages", package, "broken", f"{found}, import fails: {reason}", _import_fix(package))
        else:
            yield Finding("Packages", package, "ok", found)


def _import_fix(package: str) -> str:
    if package == "torchaudio":
        return "pip install --upgrade torch torchaudio  (both for the same CUDA or CPU build)"
    return f"pip install --force-reinstall {package}"


def _codebook_search() -> Iterator[Finding]:
    reason = native.available()
    if reason is not None:
        cause, _, fix = reason.partition("; ")
        yield Finding("Codebook search", "native", "absent", f"{cause}; torch searches, slower", fix)
    else:
        yield from _native_paths()
    try:
        import torch

        from multitok.codebook import cuda_backend
    except ImportError:
        yield Finding("Codebook search", "cuda", "absent", "torch does not import")
        return
    reason = cuda_backend.available()
    if reason is None:
        yield Finding("Codebook search", "cuda", "ok", torch.cuda.get_device_name())
    else:
        cause, _, fix = reason.rpartition(": ")
        yield Finding("Codebook search", "cuda", "absent", cause, fix)


def _native_paths() -> Iterator[Finding]:
    try:
        taken = [f"{_native_path(*shape)} for V {shape[0]:,} D {shape[1]}" for shape in EXAMPLE_CODEBOOKS]
    except MultitokError as error:
        yield Finding("Codebook search", "native", "broken", str(error), "unset MULTITOK_NATIVE_PATH")
        return
    threads = native.thread_count()
    yield Finding("Codebook search", "native", "ok", f"{', '.join(taken)}, threads: {threads}")
    supported, flags = native.supported_paths(), _cpu_flags()
    for path, needed in NATIVE_PATHS.items():
        if path in supported:
            return
        missing = " ".join(sorted(needed - flags))
        if missing:
            yield Finding("Codebook search", path, "absent", f"this machine does not offer {missing}")
        else:
            yield Finding("Codebook search", path, "absent", "the library was built without it", native.REBUILD)


def _native_path(size: int, dim: int) -> str:
    """The path that searches a codebook of this shape here."""
    values = np.zeros((size, dim), np.float32)
    matrix = native.Matrix(values.ctypes.data, "float32", size, dim, dim)
    return native.NativeCodebook(matrix, metric="l2").path(count=1000)


def _integer_nets() -> Iterator[Finding]:
    reason = native_nets.available()
    if reason is not None:
        cause, _, fix = reason.partition("; ")
        yield Finding("Neural tokenizers", "integer nets", "absent", f"{cause}; torch runs them, slower", fix)
        return
    try:
        path = native_nets.chosen_path()
    except MultitokError as error:
        yield Finding("Neural tokenizers", "integer nets", "broken", str(error), "unset MULTITOK_NATIVE_PATH")
    else:
        yield Finding("Neural tokenizers", "integer nets", "ok", f"native {path}, threads: {native.thread_count()}")


def _extras() -> Iterator[Finding]:
    for extra, (distributions, brings) in EXTRAS.items():
        found = {name: _version(name) for name in distributions}
        installed = [f"{name} {value}" for name, value in found.items() if value]
        if installed:
            yield Finding("Extras", extra, "ok", ", ".join(installed))
        else:
            yield Finding("Extras", extra, "absent", brings, f"pip install 'multitok[{extra}]'")


def _checkpoints() -> Iterator[Finding]:
    shipped = shipped_checkpoints()
    if not shipped:
        yield Finding("Tokenizers", "checkpoints", "broken", "none found", "pip install --force-reinstall multitok")
    for name in shipped:
        try:
            yield Finding("Tokenizers", name, "ok", f"{load(name).spec.kind}, sha256 verified")
        except (MultitokError, ImportError) as error:
            yield Finding("Tokenizers", name, "broken", str(error), "pip install --force-reinstall multitok")
    try:
        plugins = {kind: where for kind, where in kinds().items() if kind not in built_in()}
    except MultitokError as error:
        yield Finding("Tokenizers", "plug-ins", "broken", str(error), "pip uninstall one of the two")
    else:
        for kind, where in plugins.items():
            yield Finding("Tokenizers", kind, "ok", f"plug-in {where}")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _cpu_model() -> str:
    names = [line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cpu_flags() -> set[str]:
    for line in _cpu_lines():
        if line.startswith(("flags", "Features")):
            return set(line.partition(":")[2].split())
    return set()
