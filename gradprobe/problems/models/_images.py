"""Fitting pictures to a model that wants another number of channels or another size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from gradprobe.core.errors import UsageError, described, unknown
from gradprobe.problems.data import Data
from gradprobe.problems.encode import normalized
from gradprobe.problems.lazy import LazyData, lazy

Norm = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel."""


def check_name(library: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that a library does not know.

    Raises:
        UsageError: It does not.
    """
    names = list(known)
    if name not in names:
        raise unknown(f"model of {library}", name, names)


def fitted(pictures: Any, channels: int | None, size: tuple[int, int] | None) -> torch.Tensor:
    """Pictures ``[N, C, H, W]`` with other channels and another size.

    Grey ones are repeated for three channels; sizes change bilinearly, with anti-aliasing.

    Raises:
        UsageError: They are no pictures, or have channels that cannot be changed.
    """
    if not isinstance(pictures, torch.Tensor):
        raise UsageError(
            f"the model reads pictures [N, C, H, W], but the inputs are {described(pictures)}; choose data of "
            "pictures."
        )
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


def sized(data: Data, channels: int | None, size: tuple[int, int] | None, norm: Norm | None = None) -> Data:
    """The data, with pictures fitted by :func:`fitted` when a batch is made.

    Args:
        data: The data.
        channels: As of :func:`fitted`.
        size: As of :func:`fitted`.
        norm: Mean and standard deviation of each channel that the model's weights expect pictures to be normalised
            by; done where the data are known to be in [0, 1] (:func:`expected`).
    """
    norm = norm if is_unit(data) else None
    if channels is None and size is None and norm is None:
        return data
    rows = lazy(data)
    before = rows.encode

    def encode(raw: object, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = before(raw, targets)
        pictures = fitted(inputs, channels, size)
        return (pictures if norm is None else normalized(pictures, *norm)), targets

    return rows.encoded(encode)


def is_unit(data: Data) -> bool:
    """Whether these are known to be pictures in [0, 1] that have not been normalised."""
    return isinstance(data, LazyData) and data.unit


def expected(name: str, data: Data, norm: Norm | None) -> tuple[str, ...]:
    """What to say of the pictures that pretrained weights expect.

    Args:
        name: The model.
        data: What it is for.
        norm: What its pretrained weights expect, or None where that is not known.
    """
    if norm is None:
        return (
            f"The weights of {name} do not say how pictures are to be normalised; the data stay as they are.",
        )
    mean, std = (", ".join(f"{x:g}" for x in part) for part in norm)
    done = "done" if is_unit(data) else "not done, because the data may be so already"
    return (
        f"The weights of {name} expect pictures (x - mean) / std with mean {mean} and std {std}: {done}.",
    )
