"""A learning rate for each method, found on seeds of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from gradprobe.core.errors import UsageError
from gradprobe.estimators.base import Labelled
from gradprobe.trajectory.descents import descents
from gradprobe.trajectory.request import Request, radius_of
from gradprobe.trajectory.walk import Rules, Walked

RATES = tuple(float(f"{10 ** (k / 3):.3g}") for k in range(-18, 7))
"""Three rates a decade from 1e-6 to 100: methods differ in length by sigma and more."""

MOST_STARTS = 25
"""Starts that rates are tried from, spread evenly over those of the descent."""

POINTS = 200
"""Steps at which it is looked whether a walker has arrived."""

LATE = 2.0
"""A walker that never arrives counts as this many times the steps there were (PAR2)."""


@dataclass(frozen=True)
class Tuning:
    """How rates are chosen.

    Attributes:
        rates: The rates that are tried, in ascending order.
        seeds: How many seeds; their noise has keys of its own, so that no seed of the descent is among them.
        criterion: ``"loss"``: the median of the last loss over walkers, a diverged one counting as infinite.
            ``"steps"``: mean number of steps until a walker is within 1 % of the domain's diagonal of a global
            minimum, one that never is counting as twice the steps there were (PAR2, the penalised average run time
            of algorithm configuration).
    """

    rates: tuple[float, ...] = RATES
    seeds: int = 10
    criterion: str = "loss"


def tune(
    request: Request, labelled: Labelled, rules: Rules, tuning: Tuning
) -> tuple[float, npt.NDArray[np.float64]]:
    """The best rate of an estimator.

    Args:
        request: Function, starts, copies.
        labelled: The estimator.
        rules: How walkers move.
        tuning: How the rate is chosen.

    Returns:
        The rate with the lowest score (the smaller of two that are equal), and all scores ``[rates]``.

    Raises:
        UsageError: No rate has a finite score.
    """
    radius = radius_of(request.function) if tuning.criterion == "steps" else 0.0
    points = torch.linspace(0, len(request.starts) - 1, min(MOST_STARTS, len(request.starts))).round().long()
    own = replace(request, starts=request.starts[points], seeds=list(range(tuning.seeds)))
    every = max(rules.steps // POINTS, 1) if tuning.criterion == "steps" else max(rules.steps, 1)
    walked = descents(own, labelled, list(tuning.rates), replace(rules, every=every), "tuning")
    scores = score(walked, len(tuning.rates), replace(rules, every=every), tuning.criterion, radius)
    if not np.isfinite(scores).any():
        raise UsageError(
            f"{labelled.label} diverges at every learning rate from {tuning.rates[0]:g} to {tuning.rates[-1]:g}; "
            "give smaller ones with rates=."
        )
    return tuning.rates[int(np.argmin(scores))], scores


def score(walked: Walked, rates: int, rules: Rules, criterion: str, radius: float) -> npt.NDArray[np.float64]:
    """Scores of rates ``[rates]`` from walkers ``[rates * walkers, ...]``; see :class:`Tuning`."""
    if criterion == "loss":
        last = walked.values["loss"][:, -1]
        last = torch.where(walked.diverged.isnan(), last, torch.inf)
        return np.median(last.view(rates, -1).numpy(), axis=1)
    steps = torch.tensor(rules.recorded, dtype=torch.float64)
    inside = walked.values["distance"] <= radius
    first = torch.where(inside, steps, torch.inf).amin(1)
    first = torch.where(first.isfinite(), first, LATE * rules.steps)
    return first.view(rates, -1).mean(1).numpy()
