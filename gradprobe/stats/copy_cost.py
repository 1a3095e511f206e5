"""What a copy costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from gradprobe.stats import register
from gradprobe.stats._groups import Over
from gradprobe.stats._units import groups_of, read_units

ABOUT = ("color", "target", "stochastic", "summary")
"""Coordinates of ``estimator``."""

_LONG = {
    "forwards": "forward passes of the batch",
    "equivalents": "whole forwards with as many multiply-adds as depend on the noise",
    "seconds": "seconds of the run",
}


@register("cost", summary="what a copy costs: forward passes, full-forward equivalents and seconds")
def cost(ds: xr.Dataset, over: Over = "layer") -> xr.Dataset:
    """What one copy costs, for every estimator and layer, or for the whole model.

    Costs belong to units (a draw in a layer, or in all of them), and one unit serves every read-out of its draw: LR
    and ALR together cost what either costs. ``forwards`` are passes of the batch. ``equivalents`` are the
    multiply-adds that depend on the noise, relative to those of a whole forward: what the mathematics needs, whatever
    engine ran (:mod:`gradprobe.store.schema` says what is in it). ``seconds`` are those of this run on its machine,
    with its engines, noise, read-outs and whatever else the machine did.

    A layer's cost is that of the units that serve it. Under joint injection one unit serves all layers, and one layer
    alone costs as much as all of them: ``shared`` is True there, and layers must not be added up. ``over="model"``
    counts every unit once; it is the cost of one copy in every layer. Layers that the estimator refuses cost nothing.

    For an estimator without noise it is the cost of its one evaluation, not of a copy (``stochastic`` is False); one
    that runs backward counts three equivalents for each forward.

    Args:
        ds: Results.
        over: ``parameter``, ``layer`` (default), ``model``, or groups of layers as for ``cosine``.

    Returns:
        Dataset over (estimator, parameter | layer | group) or (estimator): ``forwards``, ``equivalents`` and
        ``seconds`` for one copy, the median over seeds of totals divided by copies (the first unit of a process is
        slower, so a mean would drift with the number of seeds); ``shared``. NaN where nothing has been computed.

    Raises:
        UsageError: ``over`` is unknown, or the results have lost a dimension.

    Example:
        >>> gp.stats.cost(ds)["equivalents"].to_pandas().round(2)
        layer      conv1  conv2  conv3  conv4   fc
        estimator
        lr          0.98   0.74   0.49   0.01  0.0
        alr         0.98   0.74   0.49   0.01  0.0
        es          1.00   0.98   0.73   0.49  0.0
    """
    units = read_units(ds)
    names, groups = groups_of(ds, over)
    part = over if isinstance(over, str) else "group"
    prices, shared = units.of(groups)
    coords: dict[str, Any] = {"estimator": [str(e) for e in ds["estimator"].values]}
    coords |= {k: ("estimator", ds[k].values) for k in ABOUT if k in ds.coords}
    dims: tuple[str, ...] = ("estimator",)
    at: Any = (slice(None), 0)
    if part != "model":
        dims, at = ("estimator", part), ()
        numel = [int(ds["numel"].values[g].sum()) for g in groups]
        coords |= {part: names, "numel": (part, numel)}
    out = xr.Dataset(coords=coords, attrs={"over": part})
    for kind, values in prices.items():
        out[kind] = (dims, np.asarray(values[at]), {"long_name": _LONG[kind]})
    out["shared"] = (dims, np.asarray(shared[at]))
    return out
