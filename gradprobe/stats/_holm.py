"""Looking at many p values at once."""

from __future__ import annotations

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
    there = np.isfinite(p)
    found = np.full(p.shape, np.nan)
    values = p[there]
    order = np.argsort(values, kind="stable")
    steps = np.minimum(values[order] * np.arange(values.size, 0, -1), 1.0)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(steps)
    found[there] = adjusted
    return found
