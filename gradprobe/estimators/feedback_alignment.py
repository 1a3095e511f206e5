"""Feedback alignment: backprop whose error comes back through fixed random matrices."""

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
    "fa",
    summary="feedback alignment: the error comes back through fixed random matrices; no noise, flat in copies",
    order=60,
    color="#332288",
    target="surrogate",
    formula="delta_l = (B_{l+1}^T delta_{l+1}) * f'(a_l), direction of W_l = delta_l x_l^T",
    source="Lillicrap, Cownden, Tweed, Akerman 2016 (arXiv 1411.0247)",
)
@dataclass(frozen=True)
class FeedbackAlignment(Estimator):
    """Backprop in which each W of a linear layer, convolution or gates of a recurrent layer is B on the way back.

    Lillicrap et al. 2016 (arXiv 1411.0247). ``delta_l = (B_{l+1}^T delta_{l+1}) * f'(a_l)``; a layer's own slope is
    that of backprop for its delta, so what comes after the last such layer, and that layer, get the gradient itself.
    B is fixed and belongs to the parameter: the same in every call, every copy, every seed and every step of a
    training. The derivatives of what lies between (activations, norms, pooling, residual sums, the products inside
    attention) are exact, and so are those of parameters that are no such matrix. Where a weight is made from others
    (parametrizations), or inside a module that stays whole (MultiheadAttention), the error passes as in backprop.

    Its mean is a field of its own, which learning turns towards the gradient by aligning W with B. Deterministic:
    the same for every copy and seed, a flat line in copies.

    Attributes:
        feedback: ``"random"`` (default), or ``"weights"``: B = W, which is backprop, for comparison.
        feedback_seed: Which random matrices; no run's seed or root seed moves them.
        scale: Their size. ``"init"`` (default): uniform within 1/sqrt(inputs of a unit), as torch initialises weights
            and whatever these have become, since B does not learn. ``"weights"``: of the weights' present root mean
            square, so that gains of trained layers are not those of their growth.
    """

    stochastic: ClassVar[bool] = False
    uses_backward: ClassVar[bool] = True

    feedback: str = "random"
    feedback_seed: int = 0
    scale: str = "init"

    def __post_init__(self) -> None:
        one_of("feedback", self.feedback, ("random", "weights"))
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
        if self.feedback == "weights":
            return weight
        bound = math.sqrt(3) * size_of(self.scale, weight)
        return uniform(self.feedback_seed, name, weight.shape, bound)
