"""Which losses depend on which samples: shared by the looks at a loss and at a layer (needs torch)."""

from __future__ import annotations

import torch


def row_masks(size: int) -> list[torch.Tensor]:
    """Masks ``[size]`` such that for any two rows one mask holds the first and not the second.

    The bits of the row numbers and their complements: 2 ceil(log2 size) masks.
    """
    rows = torch.arange(size)
    bits = [(rows >> bit) % 2 == 1 for bit in range((size - 1).bit_length())]
    return [mask for bit in bits for mask in (bit, ~bit)]


def moved(losses: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Which losses differ by more than rounding can explain."""
    tolerance = 64 * torch.finfo(clean.dtype).eps
    return ~((losses - clean).abs() <= tolerance * (1 + clean.abs()))
