"""How much of the gradient was probed."""

from __future__ import annotations

import numpy as np
import xarray as xr

from gradprobe.core.errors import UsageError
from gradprobe.stats import register
from gradprobe.stats._intervals import mean_se
from gradprobe.stats._moments import moments


@register("coverage", summary="probed share of the squared gradient norm, per estimator")
def coverage(ds: xr.Dataset) -> xr.DataArray:
    """Probed |g_bp|^2 over total |g_bp|^2.

    The sum of |g|^2 over the parameters that an estimator serves (layers that it refused, or that were not
    asked for, do not count), over the model's whole |g|^2. Statistics over the model hold the layers that were
    asked for: one that an estimator refused counts there as a direction of zero.

    Args:
        ds: Results; ``attrs["total_reference_sqnorm"]`` is the model's whole |g_bp|^2, ``sqnorm_of_batch`` that of
            one batch of several, ``sqnorm_of_run`` that of one run of several.

    Returns:
        Share between 0 and 1, dims (estimator); NaN if the whole gradient is zero.

    Raises:
        UsageError: The results hold no backprop reference or no total.

    Example:
        >>> gp.stats.coverage(ds).to_series().round(2).to_dict()
        {'lr': 1.0, 'alr': 1.0, 'es': 1.0}
    """
    own = next((name for name in ("sqnorm_of_batch", "sqnorm_of_run") if name in ds), None)
    if "total_reference_sqnorm" not in ds.attrs and own is None:
        raise UsageError("the results have no attrs['total_reference_sqnorm']; probe again to have coverage.")
    m = moments(ds, "parameter", "bp")
    total = float(ds[own] if own is not None else ds.attrs["total_reference_sqnorm"])
    served = np.nan_to_num(mean_se(m.reference)[0]) * m.served
    share = served.sum(-1) / (total if total > 0 else np.nan)
    out = xr.DataArray(share, dims=("estimator",), attrs={"long_name": "probed share of |g|^2"})
    about = {
        k: v
        for k, v in m.coords.items()
        if k == "estimator" or (isinstance(v, tuple) and v[0] == "estimator")
    }
    return out.assign_coords(about).rename("coverage")
