"""Levels of noise in results: apart from the weights, since sums over both would mean nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

Mask = npt.NDArray[np.bool_]

SMOOTHED = "smoothed"
"""The reference of levels: the loss without noise knows none, so that backprop's is 0."""


def level_mask(ds: xr.Dataset) -> Mask:
    """Which parameters are levels of noise ``[parameter]``."""
    if "level_of" not in ds.coords:
        return np.zeros(ds.sizes["parameter"], dtype=bool)
    return np.asarray(ds["level_of"].values != "")


def one_kind(places: Sequence[int] | npt.NDArray[np.int64], levels: Mask) -> npt.NDArray[np.int64]:
    """Places without levels of noise; where there is nothing else, all of them.

    Args:
        places: Indices of parameters or layers that are to be summed.
        levels: Which are levels.
    """
    every = np.asarray(places, dtype=np.int64)
    weights = every[~levels[every]]
    return weights if weights.size else every


def levels_part(ds: xr.Dataset) -> xr.Dataset | None:
    """The levels of noise of a run, and the methods that estimate them; None if there are none."""
    levels = level_mask(ds)
    return _part(ds, levels) if levels.any() else None


def weights_part(ds: xr.Dataset) -> xr.Dataset | None:
    """A run without levels of noise and without methods for nothing else; None if nothing is left."""
    levels = level_mask(ds)
    if not levels.any():
        return ds
    return None if levels.all() else _part(ds, ~levels)


def levels_beside(ds: xr.Dataset) -> xr.Dataset | None:
    """The levels of noise of a run that holds weights too; None if it does not."""
    return None if level_mask(ds).all() else levels_part(ds)


def main_part(ds: xr.Dataset, reference: str) -> tuple[xr.Dataset, str]:
    """The weights of a run, or its levels where it holds nothing else, and what they are held against.

    Args:
        ds: Results.
        reference: What was asked for; backprop gives way to ``smoothed`` for levels.
    """
    weights = weights_part(ds)
    if weights is not None:
        return weights, reference
    return ds, reference_of_levels(ds, reference)


def reference_of_levels(ds: xr.Dataset, reference: str) -> str:
    """What levels are held against where a reference was asked for."""
    there = SMOOTHED in ds["reference"].values
    return SMOOTHED if reference != SMOOTHED and there else reference


def _part(ds: xr.Dataset, chosen: Mask) -> xr.Dataset:
    """Some parameters, with the estimators that serve one of them."""
    dims = [d for d in ds["status"].dims if d not in ("estimator", "parameter")]
    served = (ds["status"] != "refused").transpose("estimator", "parameter", *dims).values
    serving = served[:, chosen].reshape(len(served), -1).any(1)
    part = ds.isel(parameter=np.flatnonzero(chosen), estimator=np.flatnonzero(serving))
    part.attrs = dict(ds.attrs)
    labels = {str(e) for e in part["estimator"].values}
    gone = {str(x) for x in ds["layer"].values[~chosen]} - {str(x) for x in part["layer"].values}
    refused: dict[str, dict[str, Any]] = json.loads(part.attrs.get("refused") or "{}")
    left = {
        label: kept
        for label, why in refused.items()
        if label in labels and (kept := {k: v for k, v in why.items() if k not in gone})
    }
    if "refused" in part.attrs:
        part.attrs["refused"] = json.dumps(left)
    return part
