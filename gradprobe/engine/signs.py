"""Signs of numbers in a bit or a byte each: what sign-encoded read-outs need of noise and inputs (ALR, section 3.4).

A sign is -1, 0 or 1. Noise has no zeros to speak of and an input after a ReLU no negatives, so one bit tells what is
there: three planes of bits serve (positive, negative, not zero), and of them the ones that are needed are kept. Few
exact zeros among both signs are listed; where there are many a second plane is kept.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from gradprobe.core.hooks import rebuilt

STORAGE = ("float32", "int8", "bits")
"""How intermediates may be kept: as they are computed, or as signs of a byte or a bit."""

_GATHER = 0x0102040810204080
"""Times eight bytes that are 0 or 1, as one number: the top byte of the product has their bits in order."""

_INDEX = 8
"""Bytes of a place in a list of zeros."""


class Signs:
    """The signs of a tensor; what comes back equals ``torch.sign`` of it, in its shape, dtype and memory layout.

    Args:
        planes: Packed bits or bytes, over all numbers in the order of memory.
        values: For bits: what an unset and a set bit of the first plane stand for.
        zeros: Places of exact zeros, sorted, or None.
        like: An empty tensor with dtype and device of the numbers.
        shape: Their shape; copies along the first axis.
        order: Axes from the slowest to the fastest in memory.
        rows: Which of the copies this is.
    """

    def __init__(
        self,
        planes: tuple[torch.Tensor, ...],
        values: tuple[int, int],
        zeros: torch.Tensor | None,
        like: torch.Tensor,
        shape: tuple[int, ...],
        order: tuple[int, ...],
        rows: range,
    ) -> None:
        self.planes, self.values, self.zeros = planes, values, zeros
        self.like, self.order, self.rows = like, order, rows
        self._shape = shape

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the numbers."""
        return (len(self.rows), *self._shape[1:])

    @property
    def ndim(self) -> int:
        """How many axes they have."""
        return len(self._shape)

    @property
    def dtype(self) -> torch.dtype:
        """Type that they had."""
        return self.like.dtype

    @property
    def bytes(self) -> int:
        """Bytes that are kept of all copies, whichever of them this is."""
        zeros = 0 if self.zeros is None else _INDEX * len(self.zeros)
        return sum(plane.nbytes for plane in self.planes) + zeros

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: slice) -> Signs:
        """Some of the copies; nothing is unpacked."""
        assert self.order[0] == 0, "copies lie one after the other"
        return Signs(self.planes, self.values, self.zeros, self.like, self._shape, self.order, self.rows[at])

    def unpacked(self) -> torch.Tensor:
        """The signs as numbers."""
        size = 1
        for n in self._shape[1:]:
            size *= n
        start, stop = self.rows.start * size, self.rows.stop * size
        if self.planes[0].dtype == torch.int8:
            flat = self.planes[0][start:stop].to(self.dtype)
        else:
            flat = _read(self.planes[0], start, stop, self.values, self.like)
            if len(self.planes) > 1:
                flat -= _read(self.planes[1], start, stop, (0, 1), self.like)
        if self.zeros is not None:
            low, high = torch.searchsorted(self.zeros, torch.tensor([start, stop], device=self.zeros.device))
            flat[self.zeros[low:high] - start] = 0
        moved = flat.view([self.shape[axis] for axis in self.order])
        return moved.permute([self.order.index(axis) for axis in range(self.ndim)])


def signs_of(x: torch.Tensor, storage: str) -> Signs | torch.Tensor:
    """The signs of a tensor as ``storage`` keeps them.

    Args:
        x: Numbers, copies along the first axis.
        storage: ``"int8"`` or ``"bits"``.

    Returns:
        Its signs; the tensor itself where it has a number that has none (NaN), or no fractions.
    """
    strides = x.stride()
    order = tuple(sorted(range(x.ndim), key=lambda axis: (-strides[axis], axis)))
    if not x.numel() or not x.is_floating_point() or bool(x.isnan().any()):
        return x
    flat = x.permute(order).reshape(-1)
    like, shape, rows = x.new_empty(0), tuple(x.shape), range(len(x))
    if storage == "int8":
        return Signs((torch.sign(flat).to(torch.int8),), (0, 0), None, like, shape, order, rows)
    positive, negative = flat > 0, flat < 0
    some = int(positive.sum()), int(negative.sum())
    none = len(flat) - sum(some)
    if not none:
        return Signs((_pack(positive),), (-1, 1), None, like, shape, order, rows)
    if not min(some):
        plane, values = (positive, (0, 1)) if not some[1] else (negative, (0, -1))
        return Signs((_pack(plane),), values, None, like, shape, order, rows)
    if _INDEX * none < len(flat) // 8:
        zeros = (positive | negative).logical_not_().nonzero().view(-1)
        return Signs((_pack(positive),), (-1, 1), zeros, like, shape, order, rows)
    return Signs((_pack(positive), _pack(negative)), (0, 1), None, like, shape, order, rows)


def opened(value: Any) -> Any:
    """The same nested containers with every :class:`Signs` as numbers."""
    if isinstance(value, Signs):
        return value.unpacked()
    return value if isinstance(value, torch.Tensor) else rebuilt(value, opened)


def bytes_kept(value: Any) -> tuple[int, int]:
    """Bytes that tensors and signs in nested containers take, and what they would take as numbers."""
    kept = plain = 0

    def see(item: Any) -> Any:
        nonlocal kept, plain
        if isinstance(item, Signs):
            kept, plain = kept + item.bytes, plain + item.like.element_size() * _numel(item._shape)
        elif isinstance(item, torch.Tensor):
            kept, plain = kept + item.nbytes, plain + item.nbytes
        else:
            return rebuilt(item, see)
        return item

    see(value)
    return kept, plain


def _numel(shape: tuple[int, ...]) -> int:
    return functools.reduce(lambda a, b: a * b, shape, 1)


def _pack(bits: torch.Tensor) -> torch.Tensor:
    """Eight booleans in each byte, the first in its lowest bit."""
    missing = -len(bits) % 8
    whole = torch.cat([bits, bits.new_zeros(missing)]) if missing else bits
    return ((whole.view(torch.int64) * _GATHER) >> 56).to(torch.uint8)


def _read(
    plane: torch.Tensor, start: int, stop: int, values: tuple[int, int], like: torch.Tensor
) -> torch.Tensor:
    """Bits ``start`` to ``stop - 1`` of a plane, each as one of two values, in memory of their own."""
    table = _table(values, like.dtype, like.device)
    first = start // 8
    rows = table.index_select(0, plane[first : -(-stop // 8)].int())
    return rows.view(-1)[start - 8 * first : stop - 8 * first]


@functools.cache
def _table(values: tuple[int, int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What each byte stands for ``[256, 8]``."""
    bits = (torch.arange(256)[:, None] >> torch.arange(8)) & 1
    return torch.where(bits == 1, values[1], values[0]).to(dtype=dtype, device=device)
