"""Backpropagation: the gradient itself, and the reference that others are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from gradprobe.estimators import register
from gradprobe.estimators._slopes import slopes
from gradprobe.estimators.base import Block, Directions, Estimator, Layer, Problem, Streams


@register(
    "bp",
    summary="backpropagation on the loss without noise",
    order=0,
    color="#0072B2",
    target="exact",
    formula="d/dtheta sum_b w_b L_b",
    source="Rumelhart, Hinton, Williams 1986",
)
@dataclass(frozen=True)
class BP(Estimator):
    """The gradient of ``sum_b w_b L_b`` by reverse-mode differentiation (Rumelhart, Hinton, Williams 1986).

    Target: exact. Deterministic: the same for every copy and seed.
    """

    stochastic: ClassVar[bool] = False
    uses_backward: ClassVar[bool] = True

    @property
    def target(self) -> str:
        """The gradient itself."""
        return "exact"

    def directions(
        self, problem: Problem, layers: Sequence[Layer], block: Block, streams: Streams
    ) -> Directions:
        """The gradient of the clean loss for the layers' parameters; 0 where the loss does not depend on them."""
        return slopes(problem, layers)
