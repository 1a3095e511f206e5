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
    """A noise family. One whose score is a function of the sign alone may say so by ``of_signs = True``.

    Attributes:
        exact: Whether the score makes the mean the gradient of the smoothed loss.
        words: How many random words of 64 bits a tile takes, a multiple of 4.
    """

    exact: bool
    words: int

    def fill(self, words: np.ndarray, out: torch.Tensor) -> None:
        """Fill ``out`` with the first numbers of a tile of unit-variance noise.

        Args:
            words: The tile's random words, uint64.
            out: float32, contiguous, on the CPU; its length is a multiple of 16 and at most a tile. A shorter
                one gets the first of the numbers that a longer one gets.
        """
        ...

    def fill_on_device(self, generator: torch.Generator, out: torch.Tensor) -> None:
        """Fill ``out`` with unit-variance noise from a generator of its device."""
        ...

    def half(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Nodes and weights of a quadrature over the size of unit-variance noise.

        ``E g(|eps|)`` is about ``sum weights g(nodes)``. The sign, which has equal chances, is left to the caller: a
        rule for one half sees no jump where the sign changes.

        Args:
            count: Most nodes.
        """
        ...

    def score(self, noise: torch.Tensor) -> torch.Tensor:
        """The score at unit variance, ``-d log density / d noise``: sigma times that of ``sigma * noise``."""
        ...
