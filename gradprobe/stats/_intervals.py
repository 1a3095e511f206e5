"""Intervals over seeds as pure array functions: the last axis is ``seed``, everything before it is a batch.

A seed whose value is NaN is left out, and degrees of freedom follow the seeds that remain.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit  # scipy.stats takes seconds to import

from gradprobe.core.errors import UsageError

Array = npt.NDArray[np.float64]

LEAST_SEEDS = 3
"""Fewest seeds for which an interval is worth printing: the t factor is 12.7 for two, 4.3 for three."""


def check_level(level: float) -> None:
    """Refuse what is no level of an interval.

    Raises:
        UsageError: It is not between 0 and 1.
    """
    if not isinstance(level, Real) or not 0 < level < 1:
        raise UsageError(f"level={level!r} is no probability; give one between 0 and 1, for example 0.95.")


def mean_se(x: Array) -> tuple[Array, Array, Array]:
    """Mean, its standard error and the number of seeds.

    Args:
        x: ``[..., seed]``.

    Returns:
        Three arrays ``[...]``: the mean (NaN without seeds), sd / sqrt(S) with sd over S - 1 (NaN for S < 2),
        and S, the number of seeds that are not NaN.
    """
    valid = np.isfinite(x)
    count = valid.sum(-1).astype(np.float64)
    with np.errstate(all="ignore"):
        mean = np.where(valid, x, 0.0).sum(-1) / count
        square = np.where(valid, (x - mean[..., None]) ** 2, 0.0).sum(-1)
        return mean, np.sqrt(square / (count - 1) / count), count


def t_quantile(p: float, count: Array, least: int = LEAST_SEEDS) -> Array:
    """Quantile of Student's t with S - 1 degrees of freedom; NaN below ``least`` seeds.

    Args:
        p: Probability, e.g. 0.975 for a two-sided 95 % interval.
        count: S, any shape.
        least: Fewest seeds that get a number.
    """
    freedom = np.where(count >= max(least, 2), count - 1, np.nan)
    return np.asarray(stdtrit(freedom, p), dtype=np.float64)


def jackknife(statistic: Callable[..., Array], *parts: Array) -> tuple[Array, Array]:
    """Value of a function of means over seeds, and its delete-one-seed standard error.

    se^2 = (S - 1)/S sum_s (theta_(s) - mean theta_(.))^2, theta_(s) the value without seed s. For a linear
    function this is the ordinary standard error of a mean.

    Args:
        statistic: Function of the means, elementwise.
        *parts: Arrays ``[..., seed]``; NaN in the same places.

    Returns:
        Value at the means of all seeds, and standard error, both ``[...]``. The value is not corrected for
        bias: the correction adds variance and covers no better.
    """
    value, rest, valid = _left_out(statistic, *parts)
    count = valid.sum(-1).astype(np.float64)
    with np.errstate(all="ignore"):
        centre = np.where(valid, rest, 0.0).sum(-1) / count
        square = np.where(valid, (rest - centre[..., None]) ** 2, 0.0).sum(-1)
        return value, np.where(count > 1, np.sqrt((count - 1) / count * square), np.nan)


def pseudo_values(statistic: Callable[..., Array], *parts: Array) -> Array:
    """S theta - (S - 1) theta_(s) of each seed, theta_(s) the value without seed s.

    Their mean is theta less its bias of order 1/S (all of it where theta is quadratic in the means), their standard
    error that of :func:`jackknife`; so they go through a t test or Fieller's interval as a plain mean does.

    Args:
        statistic: Function of the means, elementwise.
        *parts: Arrays ``[..., seed]``; NaN in the same places.

    Returns:
        ``[..., seed]``; NaN where the parts are, and for a single seed.
    """
    value, rest, valid = _left_out(statistic, *parts)
    count = valid.sum(-1).astype(np.float64)[..., None]
    with np.errstate(all="ignore"):
        return np.where(valid & (count > 1), count * value[..., None] - (count - 1) * rest, np.nan)


def _left_out(statistic: Callable[..., Array], *parts: Array) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Value at the means of all seeds ``[...]``, without each seed ``[..., seed]``, and which seeds are there."""
    valid = np.isfinite(parts[0])
    count = valid.sum(-1).astype(np.float64)
    totals = [np.where(valid, x, 0.0).sum(-1) for x in parts]
    with np.errstate(all="ignore"):
        value = statistic(*(t / count for t in totals))
        rest = statistic(
            *((t[..., None] - x) / (count - 1)[..., None] for t, x in zip(totals, parts, strict=True))
        )
    return value, rest, valid


def _fieller_terms(num: Array, den: Array, q: Array, floor: float) -> tuple[Array, Array, Array]:
    """Coefficients of k^2, -2k and 1 in mean(num - k den)^2 <= q^2 se(num - k den)^2."""
    a, se_a, count = mean_se(num)
    b, se_b, _ = mean_se(den)
    product = np.where(np.isfinite(num), (num - a[..., None]) * (den - b[..., None]), 0.0).sum(-1)
    b = np.maximum(b, floor)
    q2 = q**2
    cross = product / (count - 1) / count
    return b**2 - q2 * se_b**2, a * b - q2 * cross, a**2 - q2 * se_a**2


def fieller(num: Array, den: Array, q: Array) -> tuple[Array, Array]:
    """Interval of a ratio of means: {k >= 0 : |mean(num - k den)| <= q se(num - k den)} (Fieller 1954).

    Args:
        num: Numerator ``[..., seed]``.
        den: Denominator ``[..., seed]``.
        q: Quantile of t, ``[...]``.

    Returns:
        Low and high end, ``[...]``. High is infinite exactly where mean(den) <= q se(den).
    """
    with np.errstate(all="ignore"):
        two, half, one = _fieller_terms(num, den, q, -np.inf)
        root = np.sqrt(np.maximum(half**2 - two * one, 0.0))
        finite = (two > 0) & (mean_se(den)[0] > 0)
        low = np.where(finite, (half - root) / two, one / (half + root))
        high = np.where(finite, (half + root) / two, np.where(np.isfinite(two), np.inf, np.nan))
        return np.maximum(low, 0.0), high


def fieller_lower(num: Array, den: Array, q: Array) -> Array:
    """One-sided lower end of a ratio of means whose denominator is known not to be negative.

    The smallest k >= 0 that mean(num - k den) <= q se(num - k den) does not reject. A negative mean of the
    denominator is moved to 0 first: that lowers the bound (it stays valid) and keeps it finite.

    Args:
        num: Numerator ``[..., seed]``.
        den: Denominator ``[..., seed]``.
        q: One-sided quantile of t, ``[...]``.

    Returns:
        Lower end ``[...]``; 0 where the numerator itself is not resolved.
    """
    with np.errstate(all="ignore"):
        two, half, one = _fieller_terms(num, den, q, 0.0)
        root = np.sqrt(np.maximum(half**2 - two * one, 0.0))
        return np.where(np.isfinite(one), np.where(one > 0, one / (half + root), 0.0), np.nan)
