"""What makes two problems the same, as far as it can be written down."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gradprobe.core.spec import digest


def of_model(module: nn.Module, values: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of structure (``repr``), names and values."""
    return digest([type(module).__qualname__, repr(module), {k: of_tensor(v) for k, v in values.items()}])


def of_data(*values: Any) -> str:
    """SHA-256 of nested tensors, with keys and whatever else is there."""
    return digest([_described(v) for v in values])


def of_tensor(t: torch.Tensor) -> str:
    """SHA-256 of type, shape and values."""
    flat = t.detach().to("cpu").contiguous().flatten()
    raw = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return hashlib.sha256(f"{t.dtype}{list(t.shape)}".encode() + raw).hexdigest()


def name_of(loss: Any) -> str:
    """A name for a loss that is stable from process to process."""
    if isinstance(loss, (str, nn.Module)):
        return str(loss)
    return getattr(loss, "__qualname__", type(loss).__qualname__)


def _described(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return of_tensor(value)
    if isinstance(value, Mapping):
        return {str(k): _described(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_described(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else type(value).__qualname__
