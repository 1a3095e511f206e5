"""Mean directions of estimators on a function: integrated over the noise, or averaged over copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from gradprobe.core.streams import Streams
from gradprobe.engine.noise import Integrable
from gradprobe.estimators.base import Labelled
from gradprobe.estimators.bp import BP
from gradprobe.problems.landscape import Function
from gradprobe.trajectory.sources import Reading, check_gradients, make_source, reading_of

NODES = (12, 24, 48)
"""Nodes for each half of a variable's noise: the first of these whose field is near that of twice as many."""

TOLERANCE = 1e-8
"""Relative to the field's largest length on the trial points."""

TRIAL = 50
"""Points that the number of nodes is chosen on."""

NUMBERS = 2**21
"""Points that are evaluated at once at most."""

BLOCKS = 10
"""Blocks of copies that the standard error of a sampled mean comes from."""

Field = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Mean:
    """A field.

    Attributes:
        at: Points ``[k, d]`` -> vectors ``[k, d]``; of an integrated field by the coarser of two rules that agree.
        how: ``"exact"`` (``"unknown"`` if gradients do not pass), ``"integrated"``, ``"integrated, not converged"``
            or ``"sampled"``.
        on: Points -> vectors (by the finer rule) and their errors: standard errors of a sampled field (NaN unless the
            copies are a multiple of 20 above 20), the difference of the two rules of an integrated one.
    """

    at: Field
    how: str
    on: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def gradient(function: Function) -> Mean:
    """The gradient."""
    how = "exact" if function.differentiable else "unknown"
    return Mean(function.gradient, how, lambda points: (function.gradient(points), torch.zeros_like(points)))


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
        check_gradients(function)
        return gradient(function)
    read = reading_of(function, labelled)
    if read is not None and read.draw.derived:
        check_gradients(function, labelled.label)
        exact = copies is None and labelled.estimator.target == "exact"
        return gradient(function) if exact else _sampled(function, labelled, copies or 1000, streams)
    integrable = read is not None and isinstance(read.family, Integrable) and read.readout.shaping.exact
    if read is not None and integrable and copies is None and function.at_once:
        return _integrated(function, read)
    return _sampled(function, labelled, copies or 1000, streams)


class Rule:
    """``E[(f(x + sigma eps) - f(x)) score(eps)]`` by a product of rules for each half of a variable's noise.

    Args:
        function: The function.
        reading: Draw and read-out.
        count: Nodes for each half.
    """

    def __init__(self, function: Function, reading: Reading, count: int) -> None:
        assert isinstance(reading.family, Integrable)
        nodes, weights = reading.family.half(count)
        axis = torch.from_numpy(np.concatenate([-nodes, nodes]))
        half = torch.from_numpy(np.concatenate([weights, weights]) / 2)
        unit = torch.cartesian_prod(*[axis] * function.dims).view(-1, function.dims)
        weight = torch.cartesian_prod(*[half] * function.dims).view(-1, function.dims).prod(1)
        self.function = function
        self.shifts = reading.sigma * unit
        self.score = reading.readout.score(reading.family, unit) * weight[:, None] * reading.scale

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """At points ``[k, d]``: ``[k, d]``."""
        found = []
        with torch.no_grad():
            for some in points.split(max(NUMBERS // len(self.shifts), 1)):
                losses = self.function.values(some[:, None] + self.shifts)
                found.append((losses - self.function.values(some)[:, None]) @ self.score)
        return torch.cat(found)


def _integrated(function: Function, reading: Reading) -> Mean:
    rough, fine, converged = _rules(function, reading)

    def on(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        best = fine(points)
        return best, (best - rough(points)).abs()

    return Mean(rough, "integrated" if converged else "integrated, not converged", on)


def _rules(function: Function, reading: Reading) -> tuple[Rule, Rule, bool]:
    """A rule, one of twice as many nodes, and whether they agree."""
    assert function.domain is not None
    low, high = np.array(function.domain).T
    places = np.random.Generator(np.random.PCG64(0)).uniform(low, high, (TRIAL, function.dims))
    points = torch.from_numpy(places)
    for count in NODES:
        rough, fine = (Rule(function, reading, n) for n in (count, 2 * count))
        best = fine(points)
        gap = (rough(points) - best).abs().nan_to_num(0).max()
        converged = bool(gap <= TOLERANCE * best.nan_to_num(0).abs().max())
        if converged:
            break
    return rough, fine, converged


def _sampled(function: Function, labelled: Labelled, copies: int, streams: Streams) -> Mean:
    stochastic = labelled.estimator.stochastic
    blocks = BLOCKS if stochastic and copies % (2 * BLOCKS) == 0 and copies > 2 * BLOCKS else 1

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
