"""The launch layer's `Device`, on the CPU: the same sources, the same launches, by `HostModule`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from tests.cuda.host_module import HostModule


class HostDevice:
    """A device of which every launch is checked.

    Args:
        seed: of the schedules; 0 runs everything in order.
        capability: as of a CUDA device.
        multiprocessors: how many blocks count as working at once.
        shared_bytes: shared memory of a block; 99 KiB is the least of all devices with bfloat16 tensor cores.
    """

    # What is done to sources before they are compiled: nothing, but for tests with seeded mistakes.
    change: ClassVar[Callable[[str], str]] = staticmethod(lambda code: code)

    def __init__(
        self,
        *,
        seed: int = 0,
        capability: tuple[int, int] = (8, 0),
        multiprocessors: int = 2,
        shared_bytes: int = 99 * 1024,
    ) -> None:
        self.capability, self.multiprocessors, self.shared_bytes = capability, multiprocessors, shared_bytes
        self.seed = seed
        self.launched: list[str] = []
        self.modules: list[HostModule] = []
        self.is_current = False

    def module(self, code: str, names: Sequence[str]) -> HostModule:
        """`code`, compiled for the CPU."""
        module = _Recorded(
            code=type(self).change(code),
            options=("-std=c++17",),
            name_expressions=names,
            shared_bytes=self.shared_bytes,
        )
        module.device = self
        self.modules.append(module)
        return module

    @contextmanager
    def current(self) -> Iterator[None]:
        """Launches are refused outside of it."""
        before, self.is_current = self.is_current, True
        try:
            yield
        finally:
            self.is_current = before


class _Recorded(HostModule):
    device: HostDevice

    def run(self, function, grid, block, shared_mem, values, arrays) -> None:  # type: ignore[no-untyped-def]
        assert self.device.is_current, f"{function.name} launched on whatever device and stream is current"
        self.device.launched.append(function.name)
        self.seed = self.device.seed
        super().run(function, grid, block, shared_mem, values, arrays)
