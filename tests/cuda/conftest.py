"""What the tests of the CUDA kernels share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cuda import host_module


@pytest.fixture(scope="session", autouse=True)
def _compiler() -> None:
    if host_module.compiler() is None:
        pytest.skip("needs g++ to compile the kernels for the CPU")


@pytest.fixture(autouse=True)
def _watch() -> Iterator[None]:
    with host_module.watch_pointers():
        yield
