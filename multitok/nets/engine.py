"""What runs a stack: the native library where it is there, torch elsewhere; both give the same integers."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from multitok.nets.program import StackProgram


class Stack(Protocol):
    """A stack ready to run."""

    def run(self, values: NDArray[np.int16], /) -> NDArray[np.int32]:
        """[N, H, W, I] to [N, H', W', O]."""


class TorchRunner:
    """A stack by torch, on the CPU.

    Args:
        program: What to run.
    """

    def __init__(self, program: StackProgram) -> None:
        from multitok.nets.torch_engine import TorchStack

        self._stack = TorchStack(program)

    def run(self, values: NDArray[np.int16], /) -> NDArray[np.int32]:
        """[N, H, W, I] to [N, H', W', O]."""
        import torch

        with torch.inference_mode():
            carried = self._stack(torch.from_numpy(values.astype(np.float32)))
            integers: NDArray[np.int32] = carried.to(torch.int32).contiguous().numpy()
        return integers


def make_stack(program: StackProgram) -> Stack:
    """The fastest engine for a stack on this machine.

    Args:
        program: What to run.

    Returns:
        The stack, ready.
    """
    from multitok.nets import native

    return native.NativeStack(program) if native.available() is None else TorchRunner(program)
