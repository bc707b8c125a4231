"""Every way to search that this machine has, for the tests that all of them must pass.

The native library counts once for each of its paths. CUDA kernels join where there is a device; a module
`tests/cuda/contract_backends.py` with a function `backends() -> list[Backend]` may add more.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from multitok.codebook import Codebook, native
from multitok.errors import SpecError


class Unsuited(Exception):
    """This way to search does not take such codebooks, as documented."""


@dataclass(frozen=True)
class Backend:
    """One way to search: `prepare(values, metric)` gives a `Codebook`, or raises `Unsuited`."""

    name: str
    prepare: Callable[[Any, str], Codebook]


def every_backend() -> list[Backend]:
    """Those that run here, named for test ids."""
    found = [Backend("torch", lambda values, metric: Codebook(values, metric=metric, backend="torch"))]
    if native.available() is None:
        found.append(Backend("native", lambda values, metric: Codebook(values, metric=metric, backend="native")))
        found += [Backend(f"native-{path}", _forced(path)) for path in native.supported_paths()]
    if torch.cuda.is_available():
        found += [Backend(f"{name}-gpu", _on_gpu(name)) for name in ("cuda", "torch")]
    if importlib.util.find_spec("tests.cuda.contract_backends") is not None:
        found += importlib.import_module("tests.cuda.contract_backends").backends()
    return found


def _forced(path: str) -> Callable[[Any, str], Codebook]:
    def prepare(values: Any, metric: str) -> Codebook:
        with mock.patch.dict(os.environ, {"MULTITOK_NATIVE_PATH": path}):
            try:
                return Codebook(values, metric=metric, backend="native")
            except SpecError:
                if path.startswith("tree"):  # made for l2 and few dimensions only
                    raise Unsuited from None
                raise

    return prepare


def _on_gpu(backend: str) -> Callable[[Any, str], Codebook]:
    def prepare(values: Any, metric: str) -> Codebook:
        return Codebook(torch.as_tensor(values).cuda(), metric=metric, backend=backend)

    return prepare
