"""Mean directions of estimators on a function: integrated over the noise, or averaged over copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from gradprobe.core.streams import Streams
from gradprobe.estimators.base import Labelled
from gradprobe.estimators.bp import BP
from gradprobe.problems.landscape import Function
from gradprobe.trajectory.sources import Reading, make_source, reading_of

NODES = (12, 24, 48)
"""Nodes for each half of a variable's noise: the first of these whose field is near that of twice as many."""

TOLERANCE = 1e-8
"""Relative to the field's largest length on the trial points."""

TRIAL = 50
"""Points that the number of nodes is chosen on."""

MOST_NODES = 2**16
"""Nodes of a product rule at most."""

NUMBERS = 2**21
"""Points that are evaluated at once at most."""

BLOCKS = 10
"""Blocks of copies that the standard error of a sampled mean comes from."""

Field = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Mean:
    """A field.

    Attributes:
        at: Points ``[k, d]`` -> vectors ``[k, d]``.
        how: ``"exact"``, ``"integrated"`` or ``"sampled"``.
        on: Points -> vectors and their errors: standard errors of a sampled field, the difference from a rule of
            half as many nodes of an integrated one.
    """

    at: Field
    how: str
    on: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def gradient(function: Function) -> Mean:
    """The gradient."""
    return Mean(
        function.gradient, "exact", lambda points: (function.gradient(points), torch.zeros_like(points))
    )


def mean_of(function: Function, labelled: Labelled, copies: int | None, streams: Streams) -> Mean:
    """The mean direction of an estimator.

    Args:
        function: The function.
        labelled: The estimator.
        copies: Copies to average over; None to integrate where that works, and average over 1,000 where not.
        streams: Noise for averages, the same at every point.

    Raises:
        UsageError: The estimator does not serve a function.
    """
    if type(labelled.estimator) is BP:
        return gradient(function)
    read = reading_of(function, labelled)
    integrable = read is not None and hasattr(read.family, "half")
    if read is not None and integrable and copies is None and (4 * NODES[-1]) ** function.dims <= MOST_NODES:
        return _integrated(function, read)
    return _sampled(function, labelled, copies or 1000, streams)


def integrate(function: Function, reading: Reading, points: torch.Tensor, count: int) -> torch.Tensor:
    """``E[(f(x + sigma eps) - f(x)) score(eps)]`` by a product rule.

    Args:
        function: The function.
        reading: Draw and read-out.
        points: ``[k, d]``.
        count: Nodes for each half of a variable's noise.

    Returns:
        ``[k, d]``.
    """
    nodes, weights = reading.family.half(count)
    axis = torch.from_numpy(np.concatenate([-nodes, nodes]))
    half = torch.from_numpy(np.concatenate([weights, weights]) / 2)
    eps = torch.cartesian_prod(*[axis] * function.dims).view(-1, function.dims)
    weight = torch.cartesian_prod(*[half] * function.dims).view(-1, function.dims).prod(1)
    score = reading.readout.score(reading.family, eps) * weight[:, None] * reading.scale
    rows = max(NUMBERS // len(eps), 1)
    found = []
    with torch.no_grad():
        for some in points.split(rows):
            losses = function.values(some[:, None] + reading.sigma * eps) - function.values(some)[:, None]
            found.append(losses @ score)
    return torch.cat(found)


def _integrated(function: Function, reading: Reading) -> Mean:
    count = _nodes(function, reading)

    def at(points: torch.Tensor) -> torch.Tensor:
        return integrate(function, reading, points, count)

    def on(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        best = integrate(function, reading, points, 2 * count)
        return best, (best - at(points)).abs()

    return Mean(at, "integrated", on)


def _nodes(function: Function, reading: Reading) -> int:
    assert function.domain is not None
    low, high = np.array(function.domain).T
    places = np.random.Generator(np.random.PCG64(0)).uniform(low, high, (TRIAL, function.dims))
    points = torch.from_numpy(places)
    for count in NODES[:-1]:
        rough, fine = (integrate(function, reading, points, n) for n in (count, 2 * count))
        if (rough - fine).abs().max() <= TOLERANCE * fine.abs().max():
            return count
    return NODES[-1]


def _sampled(function: Function, labelled: Labelled, copies: int, streams: Streams) -> Mean:
    stochastic = labelled.estimator.stochastic
    blocks = BLOCKS if stochastic and copies % BLOCKS == 0 and copies > BLOCKS else 1

    def on(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = []
        for some in points.split(max(NUMBERS // copies, 1)):
            unit = torch.zeros(len(some), dtype=torch.long)
            source = make_source(function, labelled, [streams], copies // blocks, unit)
            with torch.no_grad():
                losses = function.values(some)
            found.append(torch.stack([source.directions(some, losses, k)[0] for k in range(blocks)]))
        each = torch.cat(found, 1)
        error = each.std(0) / blocks**0.5 if blocks > 1 else torch.full_like(each[0], torch.nan)
        return each.mean(0), error if stochastic else torch.zeros_like(each[0])

    return Mean(lambda points: on(points)[0], "sampled", on)
