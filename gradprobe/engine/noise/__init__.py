"""Noise families: each file registers one, with unit standard deviation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gradprobe.core.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    import torch

NOISE = Registry("noise", __name__)
register = NOISE.register


class Family(Protocol):
    """A noise family.

    Attributes:
        exact: Whether the score makes the mean the gradient of the smoothed loss.
    """

    exact: bool

    def sample(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Unit-variance float32 noise of the given shape; axis 0 runs over copies."""
        ...

    def score(self, noise: torch.Tensor) -> torch.Tensor:
        """The score at unit variance, ``-d log density / d noise``: sigma times that of ``sigma * noise``."""
        ...
