"""Devices by name."""

from __future__ import annotations

import torch

from gradprobe.core.errors import UsageError


def find_device(given: str | torch.device) -> torch.device:
    """A device that is there, with its index.

    Args:
        given: ``"cpu"``, ``"cuda"`` (the current one) or ``"cuda:1"``.

    Raises:
        UsageError: It is no such name, or this machine (or this torch) has no such device.
    """
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    try:
        device = torch.device(given)
    except (RuntimeError, TypeError):
        device = None
    if device is not None and device.type == "cuda" and device.index is None and len(there) > 1:
        device = torch.device("cuda", torch.cuda.current_device())
    if device is None or str(device) not in there:
        raise UsageError(
            f"there is no device {str(given)!r} here for torch {torch.__version__}; it has {', '.join(there)}."
        )
    return device


def device_name(device: torch.device) -> str:
    """Where noise is drawn for it, for a run's record: the name of a CUDA GPU, else ``"cpu"``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
