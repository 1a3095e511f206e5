"""A learning rate for each method, found on seeds of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from gradprobe.core.errors import UsageError
from gradprobe.core.streams import Streams
from gradprobe.estimators.base import Labelled
from gradprobe.store.paths import DWELL
from gradprobe.trajectory.descents import descents
from gradprobe.trajectory.request import Request, radius_of
from gradprobe.trajectory.walk import Rules, Walked

RATES = tuple(float(f"{10 ** (k / 3):.3g}") for k in range(-18, 7))
"""Three rates a decade from 1e-6 to 100: methods differ in length by sigma and more."""

STARTS = 25
"""Starts that rates are tried from, where a descent has several."""

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
            ``"steps"``: mean number of steps from which on a walker stays within 1 % of the domain's diagonal of a
            global minimum, one that does not (through the last tenth of the steps at least) counting as twice the
            steps there were (PAR2, the penalised average run time of algorithm configuration). Passing by does not
            count: steps that jump about at random would win.
    """

    rates: tuple[float, ...] = RATES
    seeds: int = 10
    criterion: str = "loss"


def tune(
    request: Request,
    labelled: Labelled,
    rules: Rules,
    tuning: Tuning,
    tick: Callable[[float], None] = lambda share: None,
) -> tuple[float, npt.NDArray[np.float64]]:
    """The best rate of an estimator.

    Args:
        request: Function, starts, copies.
        labelled: The estimator.
        rules: How walkers move.
        tuning: How the rate is chosen.
        tick: Told the share that is done.

    Returns:
        The rate with the lowest score, and all scores ``[rates]``; of equal scores (nobody arrives) the rate
        with the lowest median loss, of those the smallest.

    Raises:
        UsageError: No rate has a finite score.
    """
    radius = radius_of(request.function) if tuning.criterion == "steps" else 0.0
    own = replace(request, starts=tuning_starts(request), seeds=list(range(tuning.seeds)))
    every = max(rules.steps // POINTS, 1) if tuning.criterion == "steps" else max(rules.steps, 1)
    walked = descents(own, labelled, list(tuning.rates), replace(rules, every=every), "tuning", tick)
    scores = score(walked, len(tuning.rates), replace(rules, every=every), tuning.criterion, radius)
    if not np.isfinite(scores).any():
        raise UsageError(
            f"{labelled.label} diverges at every learning rate from {tuning.rates[0]:g} to {tuning.rates[-1]:g}; "
            "give smaller ones with rates=."
        )
    losses = score(walked, len(tuning.rates), rules, "loss", radius)
    return tuning.rates[int(np.lexsort((losses, scores))[0])], scores


def tuning_starts(request: Request) -> torch.Tensor:
    """Where rates are tried from: the start, or random places between several starts, so that none is their own.

    Returns:
        ``[n, d]``.
    """
    starts = request.starts
    if len(starts) == 1:
        return starts
    streams = Streams(request.root_seed, 0, "tuning starts", "cpu")
    uniform = streams.generator("uniform", "start", "", 0, 0).random((STARTS, starts.shape[1]))
    low, high = starts.amin(0), starts.amax(0)
    places = low + (high - low) * torch.from_numpy(uniform)
    with torch.no_grad():
        finite = request.function.values(places).isfinite()
    return places[finite] if bool(finite.any()) else starts[:STARTS]


def score(walked: Walked, rates: int, rules: Rules, criterion: str, radius: float) -> npt.NDArray[np.float64]:
    """Scores of rates ``[rates]`` from walkers ``[rates * walkers, ...]``; see :class:`Tuning`."""
    if criterion == "loss":
        last = walked.values["loss"][:, -1]
        last = torch.where(walked.diverged.isnan(), last, torch.inf)
        return np.median(last.view(rates, -1).numpy(), axis=1)
    steps = torch.tensor(rules.recorded, dtype=torch.float64)
    outside = ~(walked.values["distance"] <= radius)
    after = outside.flip(1).cumsum(1).flip(1)  # how often it is outside from here on
    first = torch.where(after == 0, steps, torch.inf).amin(1)
    first = torch.where(first <= (1 - DWELL) * rules.steps, first, LATE * rules.steps)
    return first.view(rates, -1).mean(1).numpy()
