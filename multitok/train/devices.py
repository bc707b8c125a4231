"""Where a training runs, and in which precision. This module imports torch."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from multitok.errors import SpecError


def choose_device(wanted: str) -> torch.device:
    """The device of this process.

    Args:
        wanted: "auto", "cpu", "cuda" or "cuda:1".

    Returns:
        "auto" and "cuda" take torchrun's GPU of this rank.

    Raises:
        SpecError: There is no such device here.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted)
    except RuntimeError as error:
        raise SpecError(f"device={wanted!r}: give 'auto', 'cpu', 'cuda' or 'cuda:1'") from error
    if device.type not in ("cpu", "cuda"):
        raise SpecError(f"device={wanted!r}: give 'auto', 'cpu' or 'cuda'; others were never tried")
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        raise SpecError(f"device={wanted!r}: torch sees no GPU here; give 'cpu', or run `multitok doctor`")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index)
    torch.cuda.set_device(device)
    # Other algorithms would give other bits in each run.
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    return device


def takes_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is computed by instructions of its own there.

    Args:
        device: CPU or GPU.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        # On processors without them torch computes bfloat16 by way of float32, slower than float32 itself.
        return "bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


def machine(device: torch.device) -> str:
    """What a card says of the machine: processor and threads, or GPU.

    Args:
        device: Where the training ran.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = "CPU"
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    threads = torch.get_num_threads()
    return f"{model}, {threads} thread{'s' if threads > 1 else ''}"
