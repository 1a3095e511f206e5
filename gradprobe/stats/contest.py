"""Two methods on the same walkers."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from gradprobe.stats import register
from gradprobe.stats._intervals import check_level, mean_se, t_quantile
from gradprobe.stats._names import two_of
from gradprobe.stats._paths import only_if, walkers
from gradprobe.stats._shares import Array, paired

Estimate = tuple[Array, Array, Array]


@register("difference", summary="paired difference between two methods over the same walkers, with intervals")
def difference(
    path: xr.Dataset,
    first: str,
    second: str,
    radius: float | None = None,
    level: float = 0.95,
    stay: bool = False,
) -> xr.Dataset:
    """Is one method really better than another, or is it the seed?

    A pair is one (start, seed): same start, and read-outs of one draw share their noise, which a comparison of
    the two methods' own intervals cannot use. Four differences of paired shares, between -1 and 1; positive is
    in favour of ``first``:

    * ``success``: share of walkers that reach a global minimum with ``first``, minus that with ``second``.
    * ``earlier``: share of pairs in which ``first`` reaches in fewer recorded steps, minus the share in which
      ``second`` does; never is infinite, so reaching beats never, and two nevers tie.
    * ``cheaper``: the same by forward evaluations.
    * ``lower``: share of pairs in which ``first`` has the lower loss at the last recorded step, minus the share
      in which ``second`` has; a walker that diverged counts as infinite, and two of them tie.

    Each has the interval of Agresti and Min (2005) for matched pairs: with b wins and c losses in n pairs,
    (b - c)/(n + 2) -/+ z sqrt(b + c + 1 - (b - c)^2/(n + 2))/(n + 2). It is about noise, for these starts; over
    several starts chances differ from pair to pair, which only lowers the variance: it is then conservative.
    Where it excludes 0 although the methods are equal, that is chance: in up to 7 % of cases from 20 pairs on,
    in up to 11 % with 10. Where (almost) all pairs tie it says too small a difference is possible: zero wins of n
    are compatible with chances up to 3.7/n, and the interval ends at 2/n.

    ``log10_loss``: mean over pairs of log10[(f_first - f*)/(f_second - f*)] at the last recorded step, f* the
    function's minimum; -1 means that ``first`` ends ten times as near. t interval over *seeds*, after averaging
    over starts. It is NaN if f* is unknown, and also if any pair has no ratio, because a gap is 0 (or below, by
    rounding) or a walker diverged: a mean over the pairs that remain would compare survivors. ``left_out``
    counts these pairs.

    If neither method has noise, pairs over seeds are copies of each other: one of them is used, and
    low = high = value.

    Source: Agresti and Min, Statistics in Medicine 24 (2005) 729-740.

    Args:
        path: What ``gp.descend`` returns. With ``every`` > 1 only recorded steps are known: two walkers that
            reach between the same two recorded steps tie.
        first: An estimator.
        second: Another one.
        radius: In the unit of the variables. Default: 1 % of the diagonal of the function's domain.
        level: Level of the intervals, between 0 and 1; default 0.95.
        stay: Count only walkers that stay: all recorded positions of the last tenth of the steps are within the
            radius. Such a one has reached at the first recorded step from which on all are (the settling time of
            control theory). By default passing by is enough, which large steps do by luck.

    Returns:
        Dataset of scalars: ``success``, ``earlier``, ``cheaper``, ``lower``, ``log10_loss``, each with ``_low``
        and ``_high``; ``pairs`` (n) and ``left_out``. The first three are NaN where no global minimum or no radius
        is known; the interval of ``log10_loss`` is NaN with a single seed.

    Raises:
        UsageError: It is no path, a name is unknown, both are the same, or an argument is not allowed.
    """
    check_level(level)
    w = walkers(path, radius, stay=stay)
    which = two_of([str(e) for e in w.path["estimator"].values], first, second)
    exact = not w.stochastic[which].any()
    seeds = slice(1) if exact else slice(None)

    def pick(x: Array) -> Array:
        return x[which][:, :, seeds].astype(np.float64)  # [2, start, seed]

    steps, forwards = w.first()
    contests: dict[str, Any] = {
        "success": ~w.near.any(-1),
        "earlier": steps,
        "cheaper": forwards,
        "lower": w.loss[..., -1],
    }
    found: dict[str, Any] = {}
    for name, values in contests.items():
        one, other = pick(values).reshape(2, -1)
        ends = paired(one, other, level)
        found |= _named(name, only_if(name == "lower" or w.known, *ends), exact)
    gap = pick(w.loss[..., -1]) - _least(w.path)
    ratio, left_out = _log_ratio(gap)
    found |= _named("log10_loss", _over_seeds(ratio, level), exact)
    found |= {"pairs": np.array(ratio.size), "left_out": np.array(left_out)}
    interval = "Agresti-Min interval over pairs; log10_loss: t interval over seeds"
    return w.label(found, (), first=first, second=second, level=level, interval=interval)


def _named(name: str, ends: tuple[Array, ...], exact: bool) -> dict[str, Array]:
    value, low, high = ends
    return {name: value, f"{name}_low": value if exact else low, f"{name}_high": value if exact else high}


def _least(path: xr.Dataset) -> float:
    """The function's minimum; NaN if unknown."""
    least = path.attrs.get("minimum_value")
    return np.nan if least is None else float(least)


def _log_ratio(gap: Array) -> tuple[Array, int]:
    """log10 of the ratio of two gaps ``[2, start, seed]``, and how many pairs have none (NaN)."""
    fine = ((gap > 0) & np.isfinite(gap)).all(0)
    logs = np.log10(np.where(fine, gap, 1.0))
    return np.where(fine, logs[0] - logs[1], np.nan), int((~fine).sum())


def _over_seeds(ratio: Array, level: float) -> Estimate:
    """Mean of ``[start, seed]`` with a t interval over seeds; NaN if one of them is."""
    mean, se, count = mean_se(ratio.mean(0))
    mean = mean if np.isfinite(ratio).all() else np.full_like(mean, np.nan)
    half = t_quantile((1 + level) / 2, count, least=2) * se
    return mean, mean - half, mean + half
