"""Looking at many p values at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gradprobe.stats._intervals import Array


def holm(p: Array) -> Array:
    """Adjusted p values: calling those below alpha significant errs anywhere with a chance of at most alpha.

    The k-th smallest of m becomes max_{j <= k} min(1, (m - j + 1) p_(j)), whatever the dependence between tests.
    (The routine of statsmodels gives the same and collects garbage at every call, which takes half a second.)

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.

    Args:
        p: Any shape; NaN are no tests and stay NaN.
    """
    return _adjusted(p, lambda x: np.maximum.accumulate(x * np.arange(x.size, 0, -1)))


def benjamini_hochberg(p: Array) -> Array:
    """Adjusted p values: of those called significant below alpha, at most that share is expected to be false.

    The k-th smallest of m becomes min_{j >= k} min(1, m p_(j)/j). Where nothing is true it errs anywhere with a
    chance of at most alpha, as Holm's does; for tests that are independent or depend on each other positively.

    Source: Benjamini and Hochberg, Journal of the Royal Statistical Society B 57 (1995) 289-300.

    Args:
        p: Any shape; NaN are no tests and stay NaN.
    """
    return _adjusted(p, lambda x: np.minimum.accumulate((x * x.size / np.arange(1, x.size + 1))[::-1])[::-1])


def _adjusted(p: Array, steps: Callable[[Array], Array]) -> Array:
    """``steps`` of the p values in ascending order, at most 1, each back in its place."""
    there = np.isfinite(p)
    found = np.full(p.shape, np.nan)
    values = p[there]
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(steps(values[order]), 1.0)
    found[there] = adjusted
    return found
