"""Sign-symmetric feedback: the error comes back through the signs of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from gradprobe.core.errors import one_of, whole
from gradprobe.estimators import register
from gradprobe.estimators._feedback import SCALES, fed_back, size_of, uniform
from gradprobe.estimators.base import Block, Directions, Estimator, Layer, Problem, Streams


@register(
    "sign-symmetric",
    summary="backprop whose error comes back through the signs of the weights; no noise, flat in copies",
    order=61,
    color="#DDCC77",
    target="surrogate",
    formula="delta_l = (B_{l+1}^T delta_{l+1}) * f'(a_l), B = M * sign(W)",
    source="Liao, Leibo, Poggio 2016 (arXiv 1510.05067)",
)
@dataclass(frozen=True)
class SignSymmetric(Estimator):
    """Feedback alignment with B = M * sign(W): the way back knows the weights' signs and not their sizes.

    Liao, Leibo, Poggio 2016 (arXiv 1510.05067); at the scale of large networks Xiao et al. 2018 (arXiv 1811.03567).
    Where the error is carried by autograd, and what the layers' own slopes are, is as for ``fa``. Its mean is a field
    of its own. Deterministic (the same for every copy and seed, a flat line in copies) unless magnitudes are redrawn.

    Attributes:
        magnitudes: M. ``"uniform"`` (default): one number for all of a layer's weights (uSF of the paper).
            ``"random"``: the size of fixed random numbers (frSF). ``"redrawn"``: the size of numbers that each copy
            draws anew (brSF, where each batch does); then it is stochastic, and a copy is a forward and a backward.
        feedback_seed: Which fixed magnitudes.
        scale: Root mean square of M: ``"init"`` (default), with which torch initialises weights, or that of the
            ``"weights"`` at present.
    """

    stochastic: ClassVar[bool] = False  # of an instance: unless magnitudes are redrawn
    uses_backward: ClassVar[bool] = True

    magnitudes: str = "uniform"
    feedback_seed: int = 0
    scale: str = "init"

    def __post_init__(self) -> None:
        one_of("magnitudes", self.magnitudes, ("uniform", "random", "redrawn"))
        one_of("scale", self.scale, SCALES)
        whole("feedback_seed", self.feedback_seed, 0)
        object.__setattr__(self, "stochastic", self.magnitudes == "redrawn")

    def directions(
        self, problem: Problem, layers: Sequence[Layer], block: Block, streams: Streams
    ) -> Directions:
        """One backward pass with other matrices; the mean of one for each copy where these are redrawn."""
        if not self.stochastic:
            return fed_back(problem, layers, self.matrix)
        sums: Directions = {}
        for copy in range(block.copies):
            found = fed_back(problem, layers, partial(self._redrawn, streams, block.index, copy))
            sums = {name: sums.get(name, 0) + g / block.copies for name, g in found.items()}
        return sums

    def forwards(self, layers: Sequence[Layer], copies: int) -> int:
        """One; and one for each copy where matrices are redrawn."""
        return 1 + copies * self.stochastic

    def matrix(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """What stands for a weight on the way back, of the weight's shape; where it is not redrawn.

        Args:
            name: Name of the parameter, which is its key.
            weight: Its value.
        """
        size = size_of(self.scale, weight)
        if self.magnitudes == "uniform":
            return size * torch.sign(weight)
        found = uniform(self.feedback_seed, name, weight.shape, math.sqrt(3) * size).abs()
        return found.to(weight) * torch.sign(weight)

    def _redrawn(
        self, streams: Streams, block: int, copy: int, name: str, weight: torch.Tensor
    ) -> torch.Tensor:
        """The matrix of one copy."""
        bound = math.sqrt(3) * size_of(self.scale, weight)
        stream = streams.generator("magnitudes", "weights", name, copy, block)
        return torch.from_numpy(stream.uniform(0, bound, tuple(weight.shape))).to(weight) * torch.sign(weight)
