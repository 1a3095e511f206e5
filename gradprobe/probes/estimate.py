"""``estimate``: one direction, for training code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gradprobe.core import spec
from gradprobe.core.errors import UsageError
from gradprobe.core.hooks import untouched_globals
from gradprobe.core.streams import Block, Streams
from gradprobe.estimators.base import Estimator, make
from gradprobe.probes.run import DEFAULT_BLOCK, check_copies, layers_of
from gradprobe.problems.problem import Problem


def estimate(
    problem: Problem,
    estimator: str | Estimator = "lr",
    *,
    copies: int = 100,
    seed: int = 0,
    block: int | None = None,
    layers: str | Sequence[str] | None = None,
    root_seed: int = 0,
    **options: Any,
) -> dict[str, torch.Tensor]:
    """One direction: the mean over ``copies`` copies, the same that :func:`probe` measures.

    Args:
        problem: The problem; it is left exactly as it was.
        estimator: Name with options, or an instance.
        copies: Monte-Carlo copies.
        seed: Which repetition; change it from step to step.
        block: Copies that share one noise key. By default 10 if ``copies`` is a multiple of it, else all.
        layers: Names, globs or class names of layers; all by default.
        root_seed: Root of all noise keys.
        **options: Options of the estimator, such as ``sigma=0.1``.

    Returns:
        Parameter name -> direction ``[*param]`` in the parameter's dtype. It has the sign of a gradient:
        descend against it.

    Raises:
        UsageError: Something unknown or impossible was asked for, a layer cannot be served, or no copy's loss
            was finite.
    """
    if options and isinstance(estimator, str):
        given = spec.parse(estimator)
        estimator = spec.label(given.name, {**given.options, **options})
    elif options:
        raise UsageError(f"give the options to the {type(estimator).__name__} itself, not to estimate.")
    made = make(estimator)
    size = block or (DEFAULT_BLOCK if isinstance(copies, int) and copies % DEFAULT_BLOCK == 0 else copies)
    check_copies(copies, size)
    with untouched_globals(), problem.frozen():
        chosen = layers_of(problem).select(layers)
        refused = made.estimator.refusals(problem, chosen)
        if refused:
            name, why = next(iter(refused.items()))
            raise UsageError(
                f"{made.label} does not serve layer {name!r}: {why}; choose layers with layers=."
            )
        streams = Streams(root_seed, seed)
        count = copies // size if made.estimator.stochastic else 1
        sums: dict[str, torch.Tensor] = {}
        for index in range(count):
            found = made.estimator.directions(problem, chosen, Block(index, size), streams)
            for name, direction in found.items():
                sums[name] = sums.get(name, 0) + direction.double()
        values = problem.parameters
        return {name: (total / count).to(values[name].dtype) for name, total in sums.items()}
