"""What a copy costs."""

from __future__ import annotations

import numpy as np
import xarray as xr

from gradprobe.stats._intervals import mean_se
from gradprobe.stats._moments import Array, Moments

AT = ("copies", "equivalents", "forwards", "seconds")


def per_copy(ds: xr.Dataset, m: Moments, at: str) -> Array:
    """Cost of a copy in units of ``at``, ``[estimator, part]``; temporary until ``cost`` is there."""
    if at == "copies":
        return np.ones(m.dot.shape[:2])
    dims = ("estimator", "parameter", "seed", "copies")
    var = ds[at] if "copies" in ds[at].dims else ds[at].expand_dims(copies=ds.copies[-1:])
    v = var.transpose(*dims).values
    n = m.copies[-v.shape[-1] :]
    each = mean_se(v[..., -1] / n[-1])[0]
    order = ds["order"].values
    if m.facts["over"] == "parameter":
        return each
    layers = np.stack([each[:, order == o].sum(1) for o in np.unique(order)], 1)
    return layers if m.facts["over"] == "layer" else np.nansum(layers, 1, keepdims=True)
