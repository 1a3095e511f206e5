"""Which minimum a walker ends in."""

from __future__ import annotations

import numpy as np
import xarray as xr

from gradprobe.stats import register
from gradprobe.stats._paths import walkers

NOWHERE, LOST = -1, -2
"""Codes of walkers that end near no known minimum, and of those that diverged."""


@register("basins", summary="which known minimum, global or local, each walker ends near")
def basins(path: xr.Dataset, radius: float | None = None) -> xr.DataArray:
    """The minimum near which a walker is at the last recorded step.

    Of the known minima within the radius, global and local ones, the nearest (in Euclidean distance; the first
    one on a tie).

    Args:
        path: What ``gp.descend`` returns.
        radius: In the unit of the variables. Default: 1 % of the diagonal of the function's domain.

    Returns:
        Whole numbers, dims (estimator, start, seed), ``start`` also where there is one only: the index along the
        path's dimension ``minimum`` (``path.minimum_position[i]``, ``path.minimum_kind[i]``), -1 if no known
        minimum is that near, -2 if the walker diverged; ``attrs["meaning"]`` says so.

    Raises:
        UsageError: It is no path, or no minimum or no radius is known.
    """
    w = walkers(path, radius, need="any")
    axes = ("estimator", "start", "seed", "coordinate")
    last = w.path["position"].isel(step=-1).transpose(*axes).values[..., None, :]
    spots = w.path["minimum_position"].transpose("minimum", "coordinate").values
    with np.errstate(invalid="ignore", over="ignore"):  # positions of walkers that diverged
        distance = np.sqrt(((last - spots) ** 2).sum(-1))
    nearest = np.where(distance.min(-1) <= w.radius, distance.argmin(-1), NOWHERE)
    meaning = (
        f"index along minimum; {NOWHERE}: near no known minimum at the last recorded step; {LOST}: diverged"
    )
    found = {"basins": np.where(w.diverged, LOST, nearest)}
    labelled = w.label(found, axes[:3])
    return labelled["basins"].assign_attrs(labelled.attrs | {"meaning": meaning})
