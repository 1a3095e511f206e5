"""Gaussian noise: score eps / sigma."""

import numpy as np
import torch

from gradprobe.engine.noise import register


@register("gaussian", summary="normal; score eps/sigma")
class Gaussian:
    """N(0, 1)."""

    exact = True

    def sample(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normals."""
        return generator.standard_normal(shape, dtype=np.float32)

    def score(self, noise: torch.Tensor) -> torch.Tensor:
        """``eps``."""
        return noise
