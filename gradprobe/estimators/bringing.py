"""Which layers are asked of which estimators: the model's, or those that an estimator brings itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gradprobe.core.layer import Layer
from gradprobe.core.level import Level
from gradprobe.estimators.base import Estimator
from gradprobe.problems.problem import Problem

NO_WEIGHTS = "it is a level of noise, no weight of the model"
"""Why an estimator of weights refuses a level, which another one brought."""


def own_layers(estimator: Estimator, problem: Problem, layers: Sequence[Layer]) -> list[Layer]:
    """What is asked of an estimator where these layers of the model are: they, or those that it brings for them."""
    return estimator.brings(problem, layers) if estimator.own_layers else list(layers)


def every_layer(
    estimators: Iterable[Estimator], problem: Problem, layers: Sequence[Layer]
) -> tuple[list[Layer], list[Layer]]:
    """Layers of the model that some estimator is asked for, and layers that estimators bring for them.

    Args:
        estimators: The estimators.
        problem: The problem.
        layers: The layers of the model that were chosen.
    """
    estimators = list(estimators)
    brought: dict[str, Layer] = {}
    for estimator in estimators:
        if estimator.own_layers:
            brought |= {x.name: x for x in estimator.brings(problem, layers)}
    asked = list(layers) if any(not x.own_layers for x in estimators) else []
    return asked, list(brought.values())


def refused(estimator: Estimator, problem: Problem, layers: Sequence[Layer]) -> dict[str, str]:
    """Layers that an estimator does not serve -> why not; every estimator of weights refuses levels of noise."""
    if estimator.own_layers:
        return estimator.refusals(problem, layers)
    levels = {x.name: NO_WEIGHTS for x in layers if isinstance(x, Level)}
    return estimator.refusals(problem, [x for x in layers if x.name not in levels]) | levels
