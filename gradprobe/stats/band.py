"""Bands over seeds."""

from __future__ import annotations

import numpy as np
import xarray as xr

from gradprobe.core.errors import UsageError
from gradprobe.stats import register
from gradprobe.stats._intervals import check_level, mean_se, t_quantile


@register("bands", summary="mean, standard deviation and t interval over seeds, pointwise")
def bands(da: xr.DataArray, level: float = 0.95) -> xr.Dataset:
    """Mean over seeds with its spread.

    std is the standard deviation over seeds (S - 1): the paper's shadow, the scatter of one run. low and high
    are mean -/+ t_{(1 + level)/2, S-1} std/sqrt(S): where the mean of endlessly many runs on this batch lies.
    *Pointwise*: of a curve with 50 points about half stay inside their 95 % bands everywhere.

    Seeds that are NaN at a point are left out there; ``seeds`` counts those that remain.

    Args:
        da: Anything with a dimension ``seed``, e.g. the result of ``cosine``.
        level: Level of the interval, between 0 and 1; default 0.95.

    Returns:
        Dataset without ``seed``: mean, std, low, high in the unit of ``da``, and seeds. With one seed std,
        low and high are NaN.

    Raises:
        UsageError: There is no dimension ``seed``, or ``level`` is not between 0 and 1.

    Example:
        >>> band = gp.stats.bands(gp.stats.cosine(ds).sel(copies=100, layer="fc"))
        >>> band[["low", "high"]].to_dataframe()[["low", "high"]].round(2)
                    low  high
        estimator
        lr         0.92  0.95
        alr        0.79  0.82
        es         0.24  0.33
    """
    if not isinstance(da, xr.DataArray) or "seed" not in da.dims:
        raise UsageError("bands needs a DataArray with the dimension 'seed', such as gp.stats.cosine(ds).")
    check_level(level)
    rows = da.transpose(..., "seed")
    mean, se, count = mean_se(np.asarray(rows.values, dtype=np.float64))
    half = t_quantile((1 + level) / 2, count, least=2) * se
    like = rows.isel(seed=0, drop=True)
    found = {"mean": mean, "std": se * np.sqrt(count), "low": mean - half, "high": mean + half}
    out = xr.Dataset({name: like.copy(data=np.asarray(value)) for name, value in found.items()})
    out["seeds"] = like.copy(data=np.asarray(count.astype(int)))
    out.attrs = da.attrs | {"level": level, "interval": "pointwise t interval over seeds"}
    return out
