"""The processes that train together: one, or those that torchrun started. This module imports torch.

Every rank holds the whole model and the same bits of it: gradients are averaged over the ranks, codebooks learn from
exact sums over the ranks (`multitok.quantize.code_sums`), and what the first rank starts from is sent to the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

# The first rank fits the start, for minutes or an hour, while the others wait.
_PATIENCE = timedelta(hours=12)


class Ranks:
    """This process's place among those that train together.

    Args:
        rank: Its number, from 0.
        count: How many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace gradients by their mean over the ranks; all ranks have to have the same ones.

        Args:
            parameters: Those without a gradient are left out.
        """
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # In one message: there are hundreds of small ones.
        joint = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(joint)
        joint /= self.count
        start = 0
        for gradient in gradients:
            gradient.copy_(joint[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()

    def mean(self, values: list[float], device: torch.device) -> list[float]:
        """The mean of each value over the ranks.

        Args:
            values: As many on every rank.
            device: Where the ranks exchange tensors.
        """
        if self.count == 1:
            return values
        joint = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(joint)
        return [float(value) for value in joint / self.count]

    def from_first(self, value: Any) -> Any:
        """What the first rank has, on all ranks; plain Python values.

        Args:
            value: Of the first rank; the others' is not looked at.
        """
        if self.count == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    @torch.no_grad()
    def copy_first(self, module: torch.nn.Module) -> None:
        """Give all ranks the first one's parameters and buffers.

        Args:
            module: Of the same shape on all ranks; changed in place.
        """
        if self.count > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor.data, src=0)


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """The ranks of the process group: the one there is, or the one that torchrun's variables ask for; else one alone.

    Args:
        device: "cuda" is joined by nccl, everything else by gloo.

    Yields:
        This process's place.
    """
    if dist.is_available() and dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "MASTER_ADDR" not in os.environ:
        yield Ranks()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
