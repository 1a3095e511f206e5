"""Laplace noise: its score is a sign, so one bit keeps it without approximation."""

import math

import numpy as np
import torch

from gradprobe.engine.noise import register
from gradprobe.engine.tiles import TILE


@register("laplace", summary="Laplace with standard deviation sigma; score sqrt(2) sign(eps)/sigma")
class Laplace:
    """Laplace with scale b = 1/sqrt(2), so that the standard deviation is 1."""

    exact = True
    of_signs = True
    words = TILE // 2

    def fill(self, words: np.ndarray, out: torch.Tensor) -> None:
        """From 32 random bits each: a sign, and minus the logarithm of 31 bits."""
        bits = torch.from_numpy(words[: len(out) // 2].view(np.int32))
        out.copy_(bits & 0x7FFFFFFF).add_(0.5).mul_(2.0**-31).log_().mul_(-math.sqrt(0.5))
        out.copysign_(bits)

    def fill_on_device(self, generator: torch.Generator, out: torch.Tensor) -> None:
        """A random sign times an exponential."""
        sign = torch.empty_like(out).random_(0, 2, generator=generator).mul_(2).sub_(1)
        out.exponential_(generator=generator).mul_(math.sqrt(0.5)).mul_(sign)

    def half(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Gauss and Laguerre's: the size is exponential."""
        nodes, weights = np.polynomial.laguerre.laggauss(count)
        return nodes * math.sqrt(0.5), weights

    def score(self, noise: torch.Tensor) -> torch.Tensor:
        """``sqrt(2) sign(eps)``."""
        return math.sqrt(2) * torch.sign(noise)
