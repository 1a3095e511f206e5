"""Which minimum a walker ends in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
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


@register("agreement", summary="the most frequent end of the walkers from each start, and its share of seeds")
def agreement(path: xr.Dataset, radius: float | None = None) -> xr.Dataset:
    """Where most walkers from a start end, and how many of them.

    Args:
        path: What ``gp.descend`` returns.
        radius: In the unit of the variables. Default: 1 % of the diagonal of the function's domain.

    Returns:
        Dataset, dims (estimator, start): ``end``, the most frequent code of :func:`basins` over seeds (on a tie the
        first minimum; any minimum before none, and none before diverged), and ``share`` of seeds with this end.

    Raises:
        UsageError: It is no path, or no minimum or no radius is known.
    """
    ends = basins(path, radius)
    end, share = most_frequent(ends.values)
    kept = ends.isel(seed=0, drop=True)
    dims = ("estimator", "start")
    return xr.Dataset({"end": (dims, end), "share": (dims, share)}, kept.coords, ends.attrs)


def most_frequent(codes: npt.NDArray[np.int_]) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.float64]]:
    """The most frequent of the last axis' codes (the first minimum on a tie), and its share of them."""
    known = np.array(sorted(set(codes.ravel().tolist()), key=lambda c: (c < 0, abs(c))))
    counts = (codes[..., None] == known).sum(axis=-2)
    return known[counts.argmax(axis=-1)], counts.max(axis=-1) / codes.shape[-1]
