"""What the tests of the CUDA kernels share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cuda import host_module


@pytest.fixture(autouse=True)
def _watch() -> Iterator[None]:
    with host_module.watch_pointers():
        yield
