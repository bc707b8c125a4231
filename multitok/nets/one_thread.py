"""Run torch on one thread, so that a result does not depend on how many threads there are.

A product of matrices may add in another order on another number of threads. What has to give the same bits runs inside
`one_thread()`. The number of threads belongs to the process; so the threads of one process take turns here, and
work that is to use many cores goes to many processes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_turn = threading.RLock()


def _new_turn() -> None:
    # A fork may have happened while another thread had its turn, and that thread is not in the child.
    global _turn
    _turn = threading.RLock()


os.register_at_fork(after_in_child=_new_turn)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch computes on the calling thread alone, without gradients."""
    with _turn:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(before)
