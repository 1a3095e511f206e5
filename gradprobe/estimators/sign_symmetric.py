"""Sign-symmetric feedback: the error comes back through the signs of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from gradprobe.core.errors import one_of, whole
from gradprobe.estimators import register
from gradprobe.estimators._feedback import SCALES, fed_back, size_of, uniform
from gradprobe.estimators.base import Block, Directions, Estimator, Layer, Problem, Streams


@register(
    "sign-symmetric",
    summary="backprop whose error comes back through the signs of the weights; no noise, flat in copies",
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
    of its own. Deterministic: the same for every copy and seed, a flat line in copies.

    Attributes:
        magnitudes: M. ``"uniform"`` (default): one number for all of a layer's weights (uSF of the paper).
            ``"random"``: the size of fixed random numbers (frSF); brSF, which draws them anew for each batch, is this
            with another ``feedback_seed`` in each step.
        feedback_seed: Which random magnitudes.
        scale: Root mean square of M: ``"init"`` (default), with which torch initialises weights, or that of the
            ``"weights"`` at present.
    """

    stochastic: ClassVar[bool] = False
    uses_backward: ClassVar[bool] = True

    magnitudes: str = "uniform"
    feedback_seed: int = 0
    scale: str = "init"

    def __post_init__(self) -> None:
        one_of("magnitudes", self.magnitudes, ("uniform", "random"))
        one_of("scale", self.scale, SCALES)
        whole("feedback_seed", self.feedback_seed, 0)

    def directions(
        self, problem: Problem, layers: Sequence[Layer], block: Block, streams: Streams
    ) -> Directions:
        """One backward pass with other matrices."""
        return fed_back(problem, layers, self.matrix)

    def matrix(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """What stands for a weight on the way back, of the weight's shape.

        Args:
            name: Name of the parameter, which is its key.
            weight: Its value.
        """
        size = size_of(self.scale, weight)
        if self.magnitudes == "uniform":
            return size * torch.sign(weight)
        found = uniform(self.feedback_seed, name, weight.shape, math.sqrt(3) * size).abs()
        return found.to(weight) * torch.sign(weight)
