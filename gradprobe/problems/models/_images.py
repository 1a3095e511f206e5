"""Fitting pictures to a model that wants another number of channels or another size."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from gradprobe.core.errors import UsageError, unknown
from gradprobe.problems.data import Data
from gradprobe.problems.lazy import lazy


def check_name(library: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that a library does not know.

    Raises:
        UsageError: It does not.
    """
    names = list(known)
    if name not in names:
        raise unknown(f"model of {library}", name, names)


def fitted(pictures: torch.Tensor, channels: int | None, size: tuple[int, int] | None) -> torch.Tensor:
    """Pictures ``[N, C, H, W]`` with other channels and another size.

    Grey ones are repeated for three channels; sizes change bilinearly, with anti-aliasing.

    Raises:
        UsageError: They are no pictures, or have channels that cannot be changed.
    """
    if pictures.ndim != 4 or not pictures.is_floating_point():
        raise UsageError(
            f"the model reads pictures [N, C, H, W], but the inputs have shape {list(pictures.shape)} of "
            f"{pictures.dtype}; choose data of pictures."
        )
    if channels is not None and pictures.shape[1] != channels:
        if pictures.shape[1] != 1:
            raise UsageError(f"the model reads {channels} channels, the pictures have {pictures.shape[1]}.")
        pictures = pictures.expand(-1, channels, -1, -1)
    if size is not None and tuple(pictures.shape[2:]) != size:
        pictures = F.interpolate(pictures, size=size, mode="bilinear", antialias=True, align_corners=False)
    return pictures.contiguous()


def sized(data: Data, channels: int | None, size: tuple[int, int] | None) -> Data:
    """The data, with pictures fitted by :func:`fitted` when a batch is made."""
    if channels is None and size is None:
        return data
    rows = lazy(data)
    before = rows.encode

    def encode(raw: object, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = before(raw, targets)
        return fitted(inputs, channels, size), targets

    return rows.encoded(encode)
