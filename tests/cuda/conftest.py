"""What the tests of the CUDA kernels share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.cuda import host_module


@pytest.fixture(autouse=True)
def _watch() -> Iterator[None]:
    """Kernels know the arrays they may touch, and what `torch.empty` gives is filled with NaN or the largest number."""
    torch.use_deterministic_algorithms(True)
    with host_module.watch_pointers():
        yield
    torch.use_deterministic_algorithms(False)
