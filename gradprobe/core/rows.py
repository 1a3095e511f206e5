"""Which losses depend on which samples: shared by the looks at a loss and at a layer (needs torch)."""

from __future__ import annotations

import torch


def split_rows(size: int, number: int) -> torch.Tensor:
    """A fixed pseudo-random half of the rows, as a mask ``[size]``; the same for the same number."""
    generator = torch.Generator().manual_seed(1000 + number)
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.randperm(size, generator=generator)[: max(1, size // 2)]] = True
    return mask


def moved(losses: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Which losses differ by more than rounding can explain."""
    tolerance = 64 * torch.finfo(clean.dtype).eps
    return ~((losses - clean).abs() <= tolerance * (1 + clean.abs()))
