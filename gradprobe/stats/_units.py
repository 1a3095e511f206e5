"""What units cost for each copy, and which of them a layer or the model needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from gradprobe.core.errors import unknown
from gradprobe.stats._groups import Over, check_groups, group_layers
from gradprobe.stats._moments import OVER, check_dims
from gradprobe.store.levels import level_mask, one_kind
from gradprobe.store.paths import check_probed

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]

KINDS = ("forwards", "equivalents", "seconds")
"""What a run stores of its cost."""

_DIMS = ("estimator", "parameter", "seed")


@dataclass(frozen=True)
class Units:
    """Units of every estimator, known by the parameter on which they are booked.

    Attributes:
        price: Kind of cost -> what a copy costs, ``[estimator, parameter]``, median over seeds; NaN where nothing is
            booked.
        booked: Index of the parameter on which the unit of each parameter is booked, ``[estimator, parameter]``; -1
            where nothing was computed.
        refused: Parameters that the estimator does not serve, ``[estimator, parameter]``.
    """

    price: dict[str, Array]
    booked: Places
    refused: Mask

    def of(self, groups: Sequence[Places]) -> tuple[dict[str, Array], Mask]:
        """What a copy of each group of parameters costs: the sum over the units that serve it, each once.

        Args:
            groups: Indices of the parameters of each group.

        Returns:
            Kind -> ``[estimator, group]`` (NaN where a unit is not there, or all is refused), and whether one of the
            units also serves a parameter outside the group.
        """
        count = self.booked.shape[1]
        serves = self.booked[:, :, None] == np.arange(count)  # [estimator, parameter, unit]
        needed = np.stack([serves[:, g].any(1) for g in groups], axis=1)
        inside = np.stack([serves[:, g].sum(1) for g in groups], axis=1)
        shared = (needed & (inside < serves.sum(1)[:, None])).any(-1)
        there = (self.booked >= 0) | self.refused
        known = np.stack([there[:, g].all(1) & (self.booked[:, g] >= 0).any(1) for g in groups], axis=1)
        sums = {}
        for kind, price in self.price.items():
            total = np.where(needed, price[:, None], 0.0).sum(-1)
            sums[kind] = np.where(known, total, np.nan)
        return sums, shared & known


def read_units(ds: xr.Dataset) -> Units:
    """The units of a run.

    Args:
        ds: Results.

    Raises:
        UsageError: They are no results of a probe, or have lost a dimension.
    """
    check_probed(ds)
    check_dims(ds, *_DIMS, "copies")
    copies = np.asarray(ds["copies"].values, dtype=np.float64)
    noisy = np.asarray(ds["stochastic"].values, dtype=bool)[:, None, None]
    forwards = _values(ds, "forwards", "copies")
    there = np.isfinite(forwards)
    last = np.where(there, np.arange(copies.size), -1).max(-1)
    paid = np.where(noisy, copies[np.maximum(last, 0)], 1.0)

    def at_end(values: Array) -> Array:
        return np.take_along_axis(values, np.maximum(last, 0)[..., None], axis=-1)[..., 0]

    ends = {"forwards": at_end(forwards), "equivalents": at_end(_values(ds, "equivalents", "copies"))}
    ends["seconds"] = _values(ds, "seconds")
    booked = _booked(ds, forwards)
    own = booked == np.arange(booked.shape[1])
    price = {
        k: np.where(own, _median(np.where(last >= 0, v / paid, np.nan)), np.nan) for k, v in ends.items()
    }
    refused = (ds["status"].transpose(*_DIMS).values == "refused").all(-1)
    return Units(price, booked, np.asarray(refused))


def groups_of(ds: xr.Dataset, over: Over) -> tuple[list[str], list[Places]]:
    """Names of parameters, layers in execution order, groups of layers or the model, and indices of their parameters.

    Raises:
        UsageError: ``over`` is none of these.
    """
    order = ds["order"].values
    if over == "parameter":
        return [str(p) for p in ds["parameter"].values], [np.array([p]) for p in range(order.size)]
    layers = [np.flatnonzero(order == o) for o in np.unique(order)]
    names = [str(ds["layer"].values[g[0]]) for g in layers]
    if over == "layer":
        return names, layers
    levels = level_mask(ds)
    if over == "model":
        return ["model"], [one_kind(np.arange(order.size), levels)]
    if isinstance(over, str):
        raise unknown("over", over, OVER)
    check_groups(over)
    members = group_layers(names, over)
    return list(members), [one_kind(np.concatenate([layers[i] for i in g]), levels) for g in members.values()]


def _values(ds: xr.Dataset, name: str, *more: str) -> Array:
    return np.asarray(ds[name].transpose(*_DIMS, *more).values, dtype=np.float64)


def _booked(ds: xr.Dataset, forwards: Array) -> Places:
    """``booked_on`` as indices; for results without it, a layer follows the last booking before it."""
    count = forwards.shape[1]
    if "booked_on" in ds:
        place = {str(p): i for i, p in enumerate(ds["parameter"].values)}
        names = ds["booked_on"].transpose(*_DIMS[:2]).values
        return np.array([[place.get(str(name), -1) for name in row] for row in names], dtype=np.int64)
    with np.errstate(invalid="ignore"):
        pays = (forwards > 0).any((-1, -2))
    there = np.isfinite(forwards).any((-1, -2))
    latest = np.maximum.accumulate(np.where(pays, np.arange(count), -1), axis=1)
    return np.where(there, latest, -1)


def _median(values: Array) -> Array:
    """Median over the last axis of what is not NaN; NaN without any."""
    ordered = np.sort(values, axis=-1)  # NaN last
    count = np.isfinite(values).sum(-1)
    both = [np.maximum(count - 1, 0) // 2, np.minimum(count // 2, values.shape[-1] - 1)]
    ends = [np.take_along_axis(ordered, b[..., None], axis=-1)[..., 0] for b in both]
    return np.where(count > 0, (ends[0] + ends[1]) / 2, np.nan)
