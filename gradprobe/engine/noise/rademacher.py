"""Rademacher noise: signs. It has no score; eps/sigma makes the mean a central difference in each coordinate."""

import numpy as np
import torch

from gradprobe.engine.noise import register


@register("rademacher", summary="random signs; mean is the central difference, exact on quadratics")
class Rademacher:
    """+1 or -1 with equal chance."""

    exact = False

    def sample(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Random signs."""
        return generator.integers(0, 2, shape, dtype=np.int8).astype(np.float32) * 2 - 1

    def score(self, noise: torch.Tensor) -> torch.Tensor:
        """``eps``."""
        return noise
