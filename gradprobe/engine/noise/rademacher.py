"""Rademacher noise: signs. It has no score; eps/sigma makes the mean a central difference in each coordinate."""

import numpy as np
import torch

from gradprobe.engine.noise import register
from gradprobe.engine.tiles import TILE


@register("rademacher", summary="random signs; mean is the central difference, exact on quadratics")
class Rademacher:
    """+1 or -1 with equal chance."""

    exact = False
    of_signs = True
    words = TILE // 64

    def fill(self, words: np.ndarray, out: torch.Tensor) -> None:
        """One random bit each."""
        bits = np.unpackbits(words[: -(-len(out) // 64)].view(np.uint8))[: len(out)]
        out.copy_(torch.from_numpy(bits)).mul_(2).sub_(1)

    def fill_on_device(self, generator: torch.Generator, out: torch.Tensor) -> None:
        """Random signs."""
        out.random_(0, 2, generator=generator).mul_(2).sub_(1)

    def half(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The size is 1."""
        return np.ones(1), np.ones(1)

    def score(self, noise: torch.Tensor) -> torch.Tensor:
        """``eps``."""
        return noise
