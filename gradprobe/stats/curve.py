"""Loss, reach and cosine along a descent."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from gradprobe.core.errors import UsageError
from gradprobe.stats import register
from gradprobe.stats._intervals import check_level, mean_se
from gradprobe.stats._paths import DIMS, only_if, walkers
from gradprobe.stats._shares import quantile, wilson


@register("progress", summary="loss, share of walkers that reached, and cosine at every recorded step")
def progress(
    path: xr.Dataset,
    radius: float | None = None,
    quantiles: tuple[float, float] = (0.1, 0.9),
    level: float = 0.95,
    stay: bool = False,
) -> xr.Dataset:
    """How a descent goes on: loss, reach and cosine over all walkers at every recorded step.

    A walker is one (start, seed). Loss is summed up by quantiles, because the mean is at the mercy of the
    walkers that went astray: one that diverged counts as +inf from then on, so the median stays finite as long
    as fewer than half did. Quantiles are linear between order statistics, and +inf where an infinite one has
    any weight. They show the scatter of single walkers, not where the median lies.

    ``reached`` is the share that has been within the radius of a global minimum *up to* this step, so it never
    falls; its interval is Wilson's at each step (pointwise), as in ``success``: conservative with several
    starts, and of no width for an estimator without noise. With ``every`` > 1 only recorded steps are known.

    Args:
        path: What ``gp.descend`` returns.
        radius: In the unit of the variables. Default: 1 % of the diagonal of the function's domain.
        quantiles: Low and high quantile of the loss; default (0.1, 0.9): eight of ten walkers lie between.
        level: Level of the intervals of ``reached``, between 0 and 1; default 0.95.
        stay: Count only walkers that stay: all recorded positions of the last tenth of the steps are within the
            radius. Such a one has reached at the first recorded step from which on all are (the settling time of
            control theory). By default passing by is enough, which large steps do by luck.

    Returns:
        Dataset, dims (estimator, step): ``loss`` (median), ``loss_low``, ``loss_high`` in the unit of f;
        ``reached``, ``reached_low``, ``reached_high``, NaN where no global minimum or no radius is known;
        ``forwards``; ``cosine`` of direction and gradient, the mean over the walkers that have one (NaN where
        none has, as at the last step).

    Raises:
        UsageError: It is no path, or an argument is not allowed.
    """
    check_level(level)
    below, above = _pair(quantiles)
    w = walkers(path, radius, stay=stay)
    shape = (w.loss.shape[0], -1, w.loss.shape[-1])
    loss = np.moveaxis(w.loss.reshape(shape), 1, -1)  # [estimator, step, walker]
    reached = np.logical_or.accumulate(w.near, axis=-1).reshape(shape)
    rate = reached.mean(1)
    ends = (
        np.where(w.stochastic[:, None], end, rate) for end in wilson(reached.sum(1), reached.shape[1], level)
    )
    cosine = np.asarray(w.path["cosine"].transpose(*DIMS).values, dtype=np.float64).reshape(shape)
    found = {
        "loss": quantile(loss, 0.5),
        "loss_low": quantile(loss, below),
        "loss_high": quantile(loss, above),
    }
    names = ("reached", "reached_low", "reached_high")
    found |= dict(zip(names, only_if(w.known, rate, *ends), strict=True))
    found |= {"forwards": w.forwards, "cosine": mean_se(np.moveaxis(cosine, 1, -1))[0]}
    return w.label(found, ("estimator", "step"), level=level, quantiles=[below, above])


def _pair(quantiles: Any) -> tuple[float, float]:
    try:
        low, high = (float(q) for q in quantiles)
    except (TypeError, ValueError):
        low = high = np.nan
    if not 0 <= low < high <= 1:
        raise UsageError(
            f"quantiles must be a low and a high one between 0 and 1, for example (0.1, 0.9), not {quantiles!r}."
        )
    return low, high
