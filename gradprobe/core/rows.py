"""Where samples lie in tensors, and which losses depend on which of them (needs torch)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gradprobe.core.hooks import map_tensors


@dataclass(frozen=True)
class Rows:
    """Where the samples of a batch lie in the tensors that it consists of.

    Attributes:
        size: How many samples.
        axis: Their axis where it has that length; axis 0 is looked at next (masks often keep it).
    """

    size: int
    axis: int = 0

    def axis_of(self, t: torch.Tensor) -> int | None:
        """The axis of a tensor with a row for each sample; None if there is none."""
        axes = (axis for axis in (self.axis, 0) if t.ndim > axis and t.shape[axis] == self.size)
        return next(axes, None)

    def map(self, function: Callable[[torch.Tensor, int], torch.Tensor], value: Any) -> Any:
        """Apply a function of tensor and axis to the tensors that have a row for each sample; leave the others."""

        def change(t: torch.Tensor) -> torch.Tensor:
            axis = self.axis_of(t)
            return t if axis is None else function(t, axis)

        return map_tensors(change, value)

    def repeated(self, value: Any, times: int) -> Any:
        """The batch several times over, copy after copy."""
        return self.map(lambda t, axis: torch.cat([t] * times, axis), value)

    def alone(self, value: Any, sample: int | torch.Tensor) -> Any:
        """One sample; its number may be a tensor ``[]``, which ``vmap`` can batch."""
        if isinstance(sample, torch.Tensor):
            number = sample.view(1)
            return self.map(lambda t, axis: t.index_select(axis, number), value)
        return self.map(lambda t, axis: t.narrow(axis, sample, 1), value)


def along(values: torch.Tensor, axis: int, ndim: int) -> torch.Tensor:
    """Values ``[..., n]`` as ``[..., 1, n, 1]``: along one axis of what has ``ndim`` axes after the first ones."""
    return values.view(*values.shape[:-1], *[1] * axis, values.shape[-1], *[1] * (ndim - axis - 1))


def fold(copies: torch.Tensor, axis: int) -> torch.Tensor:
    """Copies ``[n, *shape]`` one after the other along an axis of ``shape``."""
    return copies.movedim(0, axis).flatten(axis, axis + 1)


@functools.lru_cache(maxsize=16)
def row_masks(size: int) -> tuple[torch.Tensor, ...]:
    """Masks ``[size]`` such that for any two rows one mask holds the first and not the second.

    The bits of the row numbers and their complements: 2 ceil(log2 size) masks.
    """
    rows = torch.arange(size)
    bits = [(rows >> bit) % 2 == 1 for bit in range((size - 1).bit_length())]
    return tuple(mask for bit in bits for mask in (bit, ~bit))


def moved(losses: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Which losses differ by more than rounding can explain."""
    tolerance = 64 * torch.finfo(clean.dtype).eps
    return ~((losses - clean).abs() <= tolerance * (1 + clean.abs()))
