"""How many walkers reach a global minimum, and how soon."""

from __future__ import annotations

import numpy as np
import xarray as xr

from gradprobe.core.errors import one_of
from gradprobe.stats import register
from gradprobe.stats._intervals import check_level
from gradprobe.stats._paths import walkers
from gradprobe.stats._shares import half_reached, wilson


@register("success", summary="share of walkers that reach a global minimum, with interval, and how soon")
def success(
    path: xr.Dataset,
    radius: float | None = None,
    level: float = 0.95,
    over: str = "all",
    stay: bool = False,
) -> xr.Dataset:
    """Share of walkers that come within a radius of a global minimum.

    A walker is one (start, seed). It has *reached* if its distance to the nearest global minimum was <= radius
    at some recorded step; with ``every`` > 1 a visit between two recorded steps is not seen, and ``steps`` and
    ``forwards`` are those of the next recorded step.

    Interval: Wilson's score interval with n = walkers. It is about noise, for *these* starts: over several of
    them the number of successes is Poisson-binomial (noise is independent between starts, chances differ),
    whose variance sum p_i (1 - p_i) is at most the binomial's, so the interval is conservative. An estimator
    without noise has none: low = high = rate, and its walkers are copies of each other over seeds.

    Source: Wilson, Journal of the American Statistical Association 22 (1927) 209-212.

    Args:
        path: What ``gp.descend`` returns.
        radius: In the unit of the variables. Default: 1 % of the diagonal of the function's domain, small beside
            the distance between minima and large beside the last step of a descent that works.
        level: Level of the interval, between 0 and 1; default 0.95.
        over: ``all`` (default) pools starts; ``start`` keeps them apart.
        stay: Count only walkers that stay: all recorded positions of the last tenth of the steps are within the
            radius. Such a one has reached at the first recorded step from which on all are (the settling time of
            control theory). By default passing by is enough, which large steps do by luck.

    Returns:
        Dataset, dims (estimator), or (estimator, start). ``rate`` (share of walkers that reached), ``rate_low``,
        ``rate_high``; ``stayed`` (share within the radius at the last recorded step), ``diverged`` (share),
        ``walkers`` (n). ``steps``: first recorded step by which at least half of all walkers have reached, and
        ``forwards``: forward evaluations by which they have; a walker that never does counts as infinite, so both
        are infinite if fewer than half do. ``attrs["radius"]`` is what was used.

    Raises:
        UsageError: It is no path, no global minimum or no radius is known, or an argument is not allowed.
    """
    check_level(level)
    one_of("over", over, ("all", "start"))
    w = walkers(path, radius, "global", stay)
    dims: tuple[str, ...] = ("estimator", "start") if over == "start" else ("estimator",)
    shape = (*w.near.shape[: len(dims)], -1)
    reached, stayed, lost, steps, forwards = (
        x.reshape(shape) for x in (w.near.any(-1), w.near[..., -1], w.diverged, *w.first())
    )
    count = reached.shape[-1]
    rate = reached.mean(-1)
    noisy = w.stochastic.reshape(-1, *[1] * (len(dims) - 1))
    low, high = (np.where(noisy, end, rate) for end in wilson(reached.sum(-1), count, level))
    found = {
        "rate": rate,
        "rate_low": low,
        "rate_high": high,
        "stayed": stayed.mean(-1),
        "diverged": lost.mean(-1),
        "walkers": np.full(rate.shape, count),
        "steps": half_reached(steps),
        "forwards": half_reached(forwards),
    }
    return w.label(found, dims, level=level, interval="Wilson score interval over walkers")
