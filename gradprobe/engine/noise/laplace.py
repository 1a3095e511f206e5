"""Laplace noise: its score is a sign, so one bit keeps it without approximation."""

import math

import numpy as np
import torch

from gradprobe.engine.noise import register


@register("laplace", summary="Laplace with standard deviation sigma; score sqrt(2) sign(eps)/sigma")
class Laplace:
    """Laplace with scale b = 1/sqrt(2), so that the standard deviation is 1."""

    exact = True

    def sample(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """A random sign times an exponential."""
        size = generator.standard_exponential(shape, dtype=np.float32) * np.float32(math.sqrt(0.5))
        sign = generator.integers(0, 2, shape, dtype=np.int8) * np.int8(2) - np.int8(1)
        return size * sign

    def score(self, noise: torch.Tensor) -> torch.Tensor:
        """``sqrt(2) sign(eps)``."""
        return math.sqrt(2) * torch.sign(noise)
